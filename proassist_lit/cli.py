"""The command line of a run: a job gets a ``RunConfig`` and a directory.

What Hydra refuses is told as what we refuse ourselves, in a line.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import string
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from proassist_lit.commands.terminal import console, write
from proassist_lit.composition import (
    check_composition,
    is_multirun,
    one_line,
    store_schema,
    to_run_config,
)
from proassist_lit.config import RunConfig
from proassist_lit.config_check import ConfigFiles
from proassist_lit.config_help import help_text
from proassist_lit.config_schema import (
    read_config,
    write_config,
)
from proassist_lit.directory_lock import alone_in
from proassist_lit.errors import ConfigError, ProAssistError
from proassist_lit.going_on import begun_with, check_begins_from, check_goes_on, settled
from proassist_lit.job_result import Pruned
from proassist_lit.rendezvous import Rendezvous, is_first_process
from proassist_lit.report.runs import multirun_table
from proassist_lit.run_directory import RunDirectory, follow_latest
from proassist_lit.sweep.job import run_once
from proassist_lit.sweep.launcher import check_processes, take_gpu
from proassist_lit.sweep.settings import SearchSettings
from proassist_lit.sweep.starts import Starts
from proassist_lit.sweep.trial import VARIABLE, Trial

Job = Callable[[RunConfig, Path], float | None]

_FULL_ERROR = "HYDRA_FULL_ERROR"
_RUN_DIR = "PROASSIST_LIT_RUN_DIR"
"""Tells the processes that a job starts on further devices where its run lies."""

_OTHER_RUN_S = 15
"""Loaders of a run that was killed notice it within some seconds."""

_SHOWN = "proassist_lit_shown"
"""Attribute of an error that was shown already; it goes with the error from process to process."""


def run_app(job: Job, *, conf_dir: Path) -> None:
    """Run ``job`` as the command line says, once or for every value of a sweep.

    What a user can cause ends in one line on stderr for each fault and exit code 2, an interrupt
    in exit code 130; any other error of the job keeps its traceback. A directory that holds a run
    which is not gone on with is refused (``RunDirectory.check_begins``). The resolved configuration
    lies in the run directory as ``config.yaml`` before the job starts; if the job fails and leaves
    an earlier ``last.ckpt`` as it was, that one's is put back. In a multirun a table over the jobs
    so far (``table.csv``, ``.md``, ``.html``) is kept in the sweep's directory, and a job that came
    to its end there is not run again.

    Args:
        job: gets the checked configuration and the run directory; what it returns is the value
            that a sweep optimises.
        conf_dir: folder of ``config.yaml`` and the config groups.
    """
    failures: list[Exception] = []
    launch = Rendezvous.of_launch()
    try:
        if _is_further_process(launch):
            if run_dir := _run_dir_of_first(launch):
                with suppress(Pruned):  # the first process says so
                    job(read_config(RunConfig, run_dir / "config.yaml"), run_dir)
            return
        arguments = _parse_arguments()
        if arguments.help:
            files, program = ConfigFiles(conf_dir), f"python {Path(sys.argv[0]).name}"
            write(help_text(program, files, RunConfig(), SearchSettings()))
            return
        if not (arguments.hydra_help or arguments.shell_completion):
            check_composition(arguments, conf_dir)
            if is_multirun(arguments):
                check_begins_from(arguments.overrides)
        _run_hydra(job, conf_dir, failures, launch)
        if failures:  # of a single run, kept back from Hydra, which would add a line of its own
            raise failures[0]
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except Exception as error:
        _end(error, failures)
    finally:
        if launch is not None:
            launch.close()


def _end(error: Exception, failures: Sequence[Exception]) -> NoReturn:
    """Leave with the message and exit code that ``error`` calls for."""
    shown = getattr(error, _SHOWN, False)  # of a job of a multirun
    is_of_job = shown or any(failure is error for failure in failures)
    is_users = isinstance(error, ProAssistError) or (not is_of_job and _is_of_hydra(error))
    if _wants_traceback() or not (is_users or shown):
        raise error
    if not shown:
        _show(error)
    sys.exit(2 if is_users else 1)


def _wants_traceback() -> bool:
    return os.environ.get(_FULL_ERROR) == "1"


def _show(error: Exception, *, prefix: str = "") -> None:
    lines = str(error).splitlines() if isinstance(error, ProAssistError) else [one_line(error)]
    for line in lines:
        sys.stderr.write(f"error: {prefix}{line}\n")


def _is_of_hydra(error: Exception) -> bool:
    """Whether Hydra refused something, rather than that a program is wrong."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return True
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    raised_in = frames[-1].f_globals.get("__name__", "").split(".")[0] if frames else ""
    # ValueError of a wrong option, OSError of a run directory that cannot be made
    return isinstance(error, ValueError | OSError) and raised_in in ("hydra", "pathlib", "os")


def _parse_arguments() -> argparse.Namespace:
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        hint = "; give options such as -m before the first KEY=VALUE" if "=" in message else ""
        raise ConfigError(f"command line: {message}{hint}. --help lists what there is.")

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_args()


def _run_hydra(
    job: Job, conf_dir: Path, failures: list[Exception], launch: Rendezvous | None
) -> None:
    store_schema()
    full_error = os.environ.get(_FULL_ERROR)

    @functools.wraps(job)  # Hydra names the log file after the file of ``job``
    def task(composed: DictConfig) -> float | None:
        settings = HydraConfig.get()
        is_job = settings.mode == RunMode.MULTIRUN
        run_dir = follow_latest(Path(settings.runtime.output_dir))
        try:
            config = to_run_config(composed)
            with _environment({_FULL_ERROR: full_error, _RUN_DIR: str(run_dir)}):
                if is_job:
                    return _run_of_sweep(job, settled(config), run_dir, settings)
                if launch is not None:
                    launch.check_devices(config.trainer.devices, config.trainer.num_nodes)
                with _alone(run_dir):
                    run = RunDirectory(run_dir)
                    run.check_begins(config.resume)
                    before = begun_with(run_dir)
                    config = settled(config, before)
                    if before is not None:
                        check_goes_on(config, before, run_dir)
                    with run.config_of_checkpoint():
                        write_config(config, run_dir / "config.yaml")
                        if launch is not None:
                            launch.name(run_dir)
                        return job(config, run_dir)
        except Exception as error:
            if is_job:  # the other jobs go on, so say it now; Hydra ends with the first error
                with _environment({_FULL_ERROR: full_error}):
                    _show_of_job(error, run_dir)
                setattr(error, _SHOWN, True)
                raise
            failures.append(error)
            return None
        finally:
            if is_job and is_first_process():
                _write_table(_sweep_dir(settings))

    start = hydra.main(
        version_base="1.3", config_path=str(conf_dir.resolve()), config_name="config"
    )(task)
    with _environment({_FULL_ERROR: "1"}):  # Hydra then leaves the errors to us
        start()


def _alone(run_dir: Path) -> AbstractContextManager[None]:
    """No other process trains in ``run_dir`` meanwhile; what was killed gets time to end."""
    return alone_in(
        run_dir,
        waiting=f"{run_dir}: another process trains here; waiting up to {_OTHER_RUN_S} s for it.",
        wait_s=_OTHER_RUN_S,
        refusal=f"{run_dir}: another process trains here, and two would write over each other; "
        f"wait until it has ended, or choose another hydra.run.dir (if none does, delete "
        f"{run_dir / '.lock'}).",
    )


def _run_of_sweep(job: Job, config: RunConfig, run_dir: Path, settings: HydraConf) -> float | None:
    launcher = settings.launcher.get("_target_", "")
    check_processes(config.trainer, launcher)
    sweep_dir = _sweep_dir(settings)
    trial, starts = Trial.of_job(settings, sweep_dir), Starts.of_job(settings, sweep_dir)

    def begin(config: RunConfig, run_dir: Path) -> float | None:
        take_gpu(settings.job.num, launcher, sweep_dir)  # one that ended earlier needs none
        return job(config, run_dir)

    with _environment({VARIABLE: trial.to_text() if trial else None}):
        return run_once(begin, config, run_dir, starts)


def _sweep_dir(settings: HydraConf) -> Path:
    return Path(settings.runtime.cwd, settings.sweep.dir)


def _short_id() -> str:
    """Five letters or digits; not from the seeded generator, which repeats."""
    return "".join(random.SystemRandom().choices(string.ascii_lowercase + string.digits, k=5))


# Cached in the configuration, as Hydra's own ${now:} is: one value for a run or a sweep. Here, as
# the processes that a launcher starts for jobs import this file and nothing else of ours.
OmegaConf.register_new_resolver("short_id", _short_id, use_cache=True, replace=True)


def _show_of_job(error: Exception, run_dir: Path) -> None:
    if isinstance(error, ProAssistError) and not _wants_traceback():
        _show(error, prefix=f"job {run_dir.name}: ")
    else:
        traceback.print_exception(error)


def _write_table(sweep_dir: Path) -> None:
    table = multirun_table(sweep_dir)
    for suffix in ("csv", "md", "html"):
        table.write(sweep_dir / f"table.{suffix}")
    console().print(table)


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables (None: unset) and put them back."""
    before = {name: os.environ.get(name) for name in values}
    try:
        _set_environment(values)
        yield
    finally:
        _set_environment(before)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _is_further_process(launch: Rendezvous | None) -> bool:
    """Whether this process was started for a further device of a run.

    Hydra would make a directory of its own for every process.
    """
    by_parent = _RUN_DIR in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"
    return by_parent or (launch is not None and launch.rank > 0)


def _run_dir_of_first(launch: Rendezvous | None) -> Path | None:
    """Directory of the run, as its first process has it; None if there will be no run."""
    if launch is not None:
        return launch.wait()
    return Path(os.environ[_RUN_DIR])
