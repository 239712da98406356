from __future__ import annotations

import math
import pickle
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from proassist_lit.config import RunConfig
from proassist_lit.config_schema import read_config
from proassist_lit.errors import ConfigError, OtherJobError
from proassist_lit.job_result import JobResult, Pruned
from proassist_lit.rendezvous import is_first_process
from proassist_lit.sweep.job import run_once


class Job:
    """Notes what it got; returns, or raises, what it is told to."""

    def __init__(self, outcome: float | BaseException | None = 0.5) -> None:
        self.outcome = outcome
        self.resumes: list[str] = []

    def __call__(self, config: RunConfig, run_dir: Path) -> float | None:
        self.resumes.append(config.resume)
        assert read_config(RunConfig, run_dir / "config.yaml") == config
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def test_job_is_run_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(0.25)

    values = [run_once(job, RunConfig(resume=r), tmp_path) for r in ("none", "none", "auto")]

    assert values == [0.25] * 3
    assert job.resumes == ["none"]
    assert capsys.readouterr().out.count("finished earlier (value 0.25); not run again.\n") == 2


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_any_value_is_kept(tmp_path: Path, value: float | None) -> None:
    job = Job(value)
    assert [repr(run_once(job, RunConfig(), tmp_path)) for _ in range(2)] == [repr(value)] * 2
    assert len(job.resumes) == 1


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), SystemExit(1)])
def test_job_that_did_not_end_goes_on(tmp_path: Path, error: BaseException) -> None:
    job = Job(error)
    with pytest.raises(type(error)):
        run_once(job, RunConfig(), tmp_path)
    job.outcome = 1.0

    assert run_once(job, RunConfig(), tmp_path) == 1.0
    assert job.resumes == ["none", "auto"]


def test_job_that_begins_from_a_checkpoint_goes_on_from_its_own(tmp_path: Path) -> None:
    job = Job(RuntimeError("bug"))
    for _ in range(2):
        with pytest.raises(RuntimeError):
            run_once(job, RunConfig(resume="base.ckpt"), tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").touch()
    with pytest.raises(RuntimeError):
        run_once(job, RunConfig(resume="base.ckpt"), tmp_path)

    assert job.resumes == ["base.ckpt", "base.ckpt", "auto"]


def test_pruned_job_is_kept_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(Pruned("at step 3"))

    assert [run_once(job, RunConfig(), tmp_path) for _ in range(2)] == [None, None]
    assert JobResult.read(tmp_path) == JobResult(value=None, pruned=True)
    assert len(job.resumes) == 1
    assert "finished earlier (pruned)" in capsys.readouterr().out


@pytest.mark.parametrize("ended", [True, False])
def test_directory_of_another_job_is_refused_and_left_alone(tmp_path: Path, ended: bool) -> None:
    first = Job(0.5 if ended else RuntimeError("bug"))
    try:
        run_once(first, RunConfig(seed=1), tmp_path)
    except RuntimeError:
        assert not ended
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints/last.ckpt").touch()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()
              if path.is_file() and path.name != ".lock"}  # fmt: skip

    said = r"holds a job with seed 1, not 2\. .* another hydra\.sweep\.dir"
    with pytest.raises(OtherJobError, match=said) as refused:
        run_once(Job(), RunConfig(seed=2), tmp_path)
    # As launchers that start processes hand it on.
    assert isinstance(pickle.loads(pickle.dumps(refused.value)), OtherJobError)
    for path, content in before.items():
        assert path.read_bytes() == content


@pytest.mark.parametrize("ended", [True, False])
def test_directory_that_this_version_cannot_read_is_refused(tmp_path: Path, ended: bool) -> None:
    if ended:
        JobResult(value=0.5).write(tmp_path)
    else:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints/last.ckpt").touch()
    (tmp_path / "config.yaml").write_text("of_another_version: 1\n")

    said = r"no key or config group 'of_another_version'(.|\n)*Go on with the version that began it"
    with pytest.raises(OtherJobError, match=said):
        run_once(Job(), RunConfig(), tmp_path)
    assert (tmp_path / "config.yaml").read_text() == "of_another_version: 1\n"


def test_job_that_came_to_nothing_can_be_begun_with_other_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        run_once(Job(ConfigError("no such folder")), RunConfig(seed=1), tmp_path)

    assert run_once(Job(0.5), RunConfig(seed=2), tmp_path) == 0.5
    assert read_config(RunConfig, tmp_path / "config.yaml").seed == 2
    with pytest.raises(OtherJobError, match="holds a job with seed 2, not 1"):
        run_once(Job(), RunConfig(seed=1), tmp_path)


def test_further_process_of_a_job_leaves_the_books_to_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    with FileLock(tmp_path / ".lock"):  # the first process is at work
        assert run_once(lambda config, _: config.seed, RunConfig(seed=3), tmp_path) == 3
    assert [path.name for path in tmp_path.iterdir()] in ([], [".lock"])


@pytest.mark.parametrize(
    ("environment", "is_first"),
    [
        ({}, True),
        ({"SLURM_PROCID": "1"}, False),
        ({"LOCAL_RANK": "1"}, False),  # of Lightning's own launch
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, True),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "8", "LOCAL_RANK": "0", "SLURM_PROCID": "0"}, False),
    ],
)
def test_the_launcher_says_who_is_first(
    environment: dict[str, str], is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is is_first


def test_further_process_of_a_finished_job_does_not_wait_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_once(Job(0.25), RunConfig(), tmp_path)
    monkeypatch.setenv("SLURM_PROCID", "1")
    never = Job()
    assert run_once(never, RunConfig(), tmp_path) == 0.25
    assert never.resumes == []


def test_job_at_work_elsewhere_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(config: RunConfig, run_dir: Path) -> float:
        begun.set()
        assert go_on.wait(10)
        return 0.75

    first = threading.Thread(target=run_once, args=(slow, RunConfig(), tmp_path))
    first.start()
    assert begun.wait(10)
    threading.Timer(0.1, go_on.set).start()

    never = Job()
    assert run_once(never, RunConfig(), tmp_path) == 0.75
    first.join()
    assert never.resumes == []
    assert "another process is at work on it" in capsys.readouterr().err
