"""Searches with a launcher that composes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from proassist_lit.sweep.ask_tell import search
from proassist_lit.sweep.settings import SearchSettings
from proassist_lit.sweep.study import STUDY_NAME, open_storage

LR = "trainer.optimizer.lr=tag(log,interval(1e-4,1e-2))"


class FakeLauncher(Launcher):
    """Runs jobs of overrides: their value is how near the learning rate is to 0.001."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: list[tuple[int, tuple[str, ...]]] = []
        self.batches: list[int] = []
        self.ends: dict[int, BaseException | float | None] = {}  # number: instead of a value
        self.during: Callable[[], None] = lambda: None

    def setup(self, **_: object) -> None:
        raise NotImplementedError

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        self.batches.append(len(job_overrides))
        return [self._run(initial_job_idx + i, tuple(j)) for i, j in enumerate(job_overrides)]

    def _run(self, number: int, overrides: tuple[str, ...]) -> JobReturn:
        self.jobs.append((number, overrides))
        self.during()
        run_dir = self.folder / str(number)
        run_dir.mkdir(parents=True, exist_ok=True)
        config = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(run_dir)}}})
        assert isinstance(config, DictConfig)
        end = self.ends.pop(number, -abs(self.rate(number) - 1e-3))
        if isinstance(end, Exception):
            return JobReturn(hydra_cfg=config, status=JobStatus.FAILED, _return_value=end)
        if isinstance(end, BaseException):
            raise end
        return JobReturn(hydra_cfg=config, status=JobStatus.COMPLETED, _return_value=end)

    def rate(self, number: int) -> float:
        [text] = {o for n, os in self.jobs for o in os if n == number and "optimizer.lr" in o}
        return float(text.partition("=")[2])

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.jobs]


def run(launcher: FakeLauncher, *arguments: str, num_trials: int = 3, **settings_: Any) -> None:
    settings = SearchSettings(num_trials=num_trials, **settings_)
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(launcher.folder)}}})
    assert isinstance(config, DictConfig)
    search(settings, config, launcher, arguments or (LR,))


def states(folder: Path) -> list[str]:
    with open_storage(folder) as storage:
        trials = storage.get_all_trials(storage.get_study_id_from_name(STUDY_NAME))
    return [trial.state.name for trial in trials]
