"""A search: trials are asked for, launched as jobs, and told of, until there are enough."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

import yaml
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from proassist_lit.atomic import write_text
from proassist_lit.directory_lock import alone_in
from proassist_lit.errors import ConfigError, OtherJobError
from proassist_lit.going_on import override
from proassist_lit.job_result import JobResult
from proassist_lit.sweep.launcher import is_time_up
from proassist_lit.sweep.settings import SearchSettings
from proassist_lit.sweep.space import SearchSpace
from proassist_lit.sweep.starts import MOST_STARTS, Starts
from proassist_lit.sweep.study import Asked, Study, open_storage

_OTHER_SWEEP_S = 5
"""How long a killed search may still hold its directory: until its workers have noticed."""


def search(
    settings: SearchSettings, config: DictConfig, launcher: Launcher, arguments: Sequence[str]
) -> None:
    """Search until there are ``num_trials`` trials, going on with what the directory holds.

    Trials that were begun and not finished are run again first, with their own values and in
    their own directories, where the job goes on; one whose process died again and again, without
    getting further, comes last. A trial that fails counts; one whose time was up is left to the
    next start. One whose directory holds another job ends the search, and is left to the next
    start, too: what changed would change the trials to come as well.

    Args:
        settings: of the search.
        config: Hydra's configuration of the multirun.
        launcher: what runs jobs.
        arguments: overrides of the command line.

    Raises:
        ConfigError: the space is wrong, the directory is another search's or in use, that of a
            trial holds another job, no trial came to its end, or the time of some was up.
    """
    space = SearchSpace.of(settings.params, arguments)
    sweep_dir = Path(config.hydra.sweep.dir)
    sweep_dir.mkdir(parents=True, exist_ok=True)
    refusal = (
        f"hydra.sweep.dir={sweep_dir}: another process searches in this directory; wait for it, or "
        "choose another directory."
    )
    with (
        alone_in(sweep_dir, wait_s=_OTHER_SWEEP_S, refusal=refusal),
        open_storage(sweep_dir) as storage,
    ):
        study = Study(storage, sweep_dir, settings, space)
        OmegaConf.save(config, sweep_dir / "multirun.yaml")
        rounds = _Rounds(study, space, launcher, sweep_dir)
        try:
            last = rounds.go_on(study.unfinished())
            while (missing := settings.num_trials - len(study)) > 0:
                rounds.run([study.ask() for _ in range(min(settings.n_jobs, missing))])
            for trial in last:
                rounds.run_last(trial)
        except BaseException as error:
            if what := rounds.broken_off(error):
                sys.stderr.write(
                    f"The search {what}; {len(study)} of {settings.num_trials} trials were begun. "
                    f"Go on with: {_same_command(sweep_dir)}\n"
                )
            raise
        rounds.conclude()


class _Rounds:
    """Runs trials, some at a time."""

    def __init__(
        self, study: Study, space: SearchSpace, launcher: Launcher, sweep_dir: Path
    ) -> None:
        self._study, self._space = study, space
        self._launcher, self._sweep_dir = launcher, sweep_dir
        self._under_way: Sequence[Asked] = ()

    def go_on(self, trials: Sequence[Asked]) -> list[Asked]:
        """Run trials that an earlier start began; return those that came to nothing too often."""
        num_starts = {trial.number: self._starts(trial).num for trial in trials}
        now = [trial for trial in trials if num_starts[trial.number] < MOST_STARTS]
        # The last time alone: the death of one process may have ended others beside it.
        alone = {number for number, num in num_starts.items() if num == MOST_STARTS - 1}
        for stretch in _stretches(now, alone):
            self.run(stretch)
        return [trial for trial in trials if num_starts[trial.number] >= MOST_STARTS]

    def run_last(self, trial: Asked) -> None:
        """Run a trial whose process has died each time: when it does, nothing else is held up."""
        best = self._study.best()
        known = f" Best so far: number {best[0].number}, value {best[1]:.6g}." if best else ""
        sys.stderr.write(
            f"trial {trial.number}: its process died the last {self._starts(trial).num} times "
            "before it got further (was it out of memory?); it is begun once more, behind the "
            f"others.{known} By itself: {_command(self._space.fill(trial.overrides))}\n"
        )
        self.run([trial])

    def run(self, trials: Sequence[Asked]) -> None:
        """Launch trials of adjoining numbers together, and tell what came of them.

        Raises:
            ConfigError: the directories of some hold what they cannot go on with.
        """
        self._under_way = trials
        jobs = [self._space.fill(trial.overrides) for trial in trials]
        results = self._launcher.launch(jobs, initial_job_idx=trials[0].number)
        refused: list[int] = []
        for trial, result in zip(trials, results, strict=True):
            if isinstance(result._return_value, OtherJobError):  # the job has said why
                refused.append(trial.number)
            else:
                self._tell(trial, result)
        self._under_way = ()
        self._write_best()
        if refused:
            raise ConfigError(
                f"hydra.sweep.dir={self._sweep_dir}: the directories of {_named(refused)} hold "
                "trials that cannot go on as they are asked for now (see above); nothing of them "
                "is lost. Put back what was changed and start the same command again, or remove "
                "these directories to begin the trials anew."
            )

    def broken_off(self, error: BaseException) -> str:
        """What ``error`` did to the search; empty where it would do so again.

        Trials that were stopped did not come to nothing.
        """
        if not isinstance(error, Exception):  # Ctrl-C, or a signal's SystemExit
            for trial in self._under_way:
                self._starts(trial).forget()
            return "was stopped"
        if not any(self._starts(trial).died for trial in self._under_way):
            return ""  # the launcher refused, say
        return f"broke off at trial {_named(trial.number for trial in self._under_way)}"

    def _starts(self, trial: Asked) -> Starts:
        return Starts(self._sweep_dir, trial.number)

    def _tell(self, trial: Asked, result: JobReturn) -> None:
        if is_time_up(result._return_value):
            sys.stderr.write(
                f"trial {trial.number}: its time was up; it goes on when the search is started "
                "again.\n"
            )
            return
        if result.status is JobStatus.FAILED:  # the job has said why
            self._study.tell(trial.number, None)
            return
        value, run_dir = result.return_value, _run_dir(result)
        kept = JobResult.read(run_dir)
        pruned = kept is not None and kept.pruned
        self._study.tell(trial.number, value, pruned=pruned)
        if pruned:
            sys.stdout.write(f"trial {trial.number}: pruned\n")
        elif trial.number in self._study.numbers("fail"):
            sys.stderr.write(f"trial {trial.number}: failed, its value is {value}\n")

    def _write_best(self) -> None:
        if best := self._study.best():
            trial, value = best
            overrides = self._space.fill(trial.overrides)
            content = {"number": trial.number, "value": value, "overrides": overrides}
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
            write_text(self._sweep_dir / "best.yaml", text)

    def conclude(self) -> None:
        """Say what came out.

        Raises:
            ConfigError: no trial came to its end, or some can still go on.
        """
        num, best = len(self._study), self._study.best()
        failed, unfinished = self._study.numbers("fail"), self._study.numbers("running")
        if failed:
            sys.stderr.write(f"{len(failed)} of {num} trials failed: {_named(failed)}\n")
        if best:
            trial, value = best
            command = _command(self._space.fill(trial.overrides))
            sys.stdout.write(
                f"best of {num} trials{' so far' if unfinished else ''}: number {trial.number}, "
                f"value {value:.6g}, {' '.join(trial.overrides)}\nRun it again: {command}\n"
            )
        if unfinished:
            raise ConfigError(
                f"hydra.sweep.dir={self._sweep_dir}: the time of {len(unfinished)} of {num} trials "
                f"was up before they came to their end: {_named(unfinished)}. Go on with: "
                f"{_same_command(self._sweep_dir)}"
            )
        if best is None:
            raise ConfigError(
                f"hydra.sweep.dir={self._sweep_dir}: none of the {num} trials has a value; see "
                "above why, mend it, and begin in another directory."
            )


def _run_dir(result: JobReturn) -> Path:
    assert result.hydra_cfg is not None
    return Path(result.hydra_cfg.hydra.runtime.output_dir)


def _stretches(trials: Iterable[Asked], alone: Container[int]) -> Iterator[list[Asked]]:
    """Trials of adjoining numbers: a launcher counts its jobs on from the first."""
    stretch: list[Asked] = []
    for trial in trials:
        last = stretch[-1].number if stretch else trial.number - 1
        if trial.number != last + 1 or (stretch and (trial.number in alone or last in alone)):
            yield stretch
            stretch = []
        stretch.append(trial)
    if stretch:
        yield stretch


def _named(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _same_command(sweep_dir: Path) -> str:
    kept = [word for word in sys.argv[1:] if not word.startswith("hydra.sweep.dir=")]
    return _command([*kept, override("hydra.sweep.dir", sweep_dir)])


def _command(arguments: Sequence[str]) -> str:
    return shlex.join(["python", Path(sys.argv[0]).name, *arguments])
