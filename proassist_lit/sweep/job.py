"""A job of a multirun: done once, however often the sweep is started."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from proassist_lit.config import RunConfig
from proassist_lit.config_schema import read_config, write_config
from proassist_lit.directory_lock import alone_in
from proassist_lit.errors import ConfigError, OtherJobError
from proassist_lit.going_on import differences
from proassist_lit.job_result import JobResult, Pruned
from proassist_lit.rendezvous import is_first_process
from proassist_lit.run_directory import RunDirectory
from proassist_lit.sweep.starts import Starts


def run_once(
    job: Callable[[RunConfig, Path], float | None],
    config: RunConfig,
    run_dir: Path,
    starts: Starts | None = None,
) -> float | None:
    """Run ``job`` unless its directory holds its result.

    One that was begun there and did not come to its end goes on from its last checkpoint. While
    it is at work, perhaps for a sweep that was killed, another process waits for it.

    Args:
        job: see ``cli.run_app``.
        config: of the job.
        run_dir: its directory; holds ``config.yaml`` before the job begins.
        starts: of the trial that the job is; None if it is none.

    Returns:
        What ``job`` returned, now or earlier; None of one that was pruned.

    Raises:
        OtherJobError: the directory holds what a job with another configuration came to.
    """
    if not is_first_process():  # of several on one job: the first one keeps the books
        if result := JobResult.read(run_dir):  # it will not run, either
            return result.value
        return _run(job, _going_on(config, run_dir), run_dir).value
    waiting = f"job {run_dir.name}: another process is at work on it; waiting for it."
    with alone_in(run_dir, waiting=waiting):
        config_file = run_dir / "config.yaml"
        if config_file.exists():
            result = JobResult.read(run_dir)
            if result or RunDirectory(run_dir).last_checkpoint.exists():  # else nothing to lose
                _check_same(config, _read_before(run_dir), run_dir)
            if result:
                _say_finished(result, run_dir)
                return result.value
            config = _going_on(config, run_dir)
        write_config(config, config_file)
        with starts.counted(run_dir) if starts else nullcontext():
            result = _run(job, config, run_dir)
            result.write(run_dir)
        return result.value


def _run(
    job: Callable[[RunConfig, Path], float | None], config: RunConfig, run_dir: Path
) -> JobResult:
    try:
        value = job(config, run_dir)
    except Pruned:
        return JobResult(value=None, pruned=True)
    return JobResult(value=None if value is None else float(value))


def _going_on(config: RunConfig, run_dir: Path) -> RunConfig:
    begun = RunDirectory(run_dir).last_checkpoint.exists()
    return replace(config, resume="auto") if begun or config.resume == "none" else config


def _read_before(run_dir: Path) -> RunConfig:
    try:
        return read_config(RunConfig, run_dir / "config.yaml")
    except ConfigError as error:
        raise OtherJobError(
            f"{error}\n{run_dir}: holds a job that this version of the package cannot read. Go on "
            "with the version that began it, or give another hydra.sweep.dir."
        ) from error


def _check_same(config: RunConfig, before: RunConfig, run_dir: Path) -> None:
    if wrong := differences(before, config):
        raise OtherJobError(
            f"{run_dir}: holds a job with {', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}"
            ". Give what was given there to go on with that sweep, or another hydra.sweep.dir."
        )


def _say_finished(result: JobResult, run_dir: Path) -> None:
    outcome = "pruned" if result.pruned else f"value {result.value}"
    sys.stdout.write(f"job {run_dir.name}: finished earlier ({outcome}); not run again.\n")
