from __future__ import annotations

import threading
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from proassist_lit import rendezvous
from proassist_lit.errors import ConfigError
from proassist_lit.rendezvous import Rendezvous


@pytest.fixture(params=["torchrun", "slurm"])
def processes(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Rendezvous]:
    """Three processes of one launch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rendezvous, "PATIENCE_S", 5.0)
    if request.param == "slurm":
        common, names = (
            {"SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0"},
            ("SLURM_PROCID", "SLURM_NTASKS"),
        )
    else:
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        monkeypatch.setattr(rendezvous, "store", store, raising=False)  # lives as the test does
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
        common |= {"TORCHELASTIC_RUN_ID": "none"}
        names = ("RANK", "WORLD_SIZE")
    return [Rendezvous(common | dict(zip(names, (str(i), "3"), strict=True))) for i in range(3)]


def test_all_processes_get_the_directory_of_the_first(processes: list[Rendezvous]) -> None:
    found: list[Path | None] = []
    waiting = [threading.Thread(target=lambda p=p: found.append(p.wait())) for p in processes[1:]]
    for thread in waiting:
        thread.start()
    processes[0].name(Path("outputs/run"))
    for thread in waiting:
        thread.join()
    assert found == [Path.cwd() / "outputs/run"] * 2
    processes[0].close()  # does not take it back
    assert processes[1].wait() == Path.cwd() / "outputs/run"


def test_as_many_devices_as_processes_are_asked_for(processes: list[Rendezvous]) -> None:
    for devices, num_nodes in (("3", 1), ("1", 3), ("auto", 1)):
        processes[0].check_devices(devices, num_nodes)
    for devices, num_nodes in (("1", 1), ("3", 2)):
        with pytest.raises(
            ConfigError, match=rf"3 processes .*devices={devices} on .*={num_nodes} "
        ):
            processes[0].check_devices(devices, num_nodes)


def test_there_is_no_run_where_the_first_process_ended(processes: list[Rendezvous]) -> None:
    processes[1].close()  # tells nobody anything
    processes[0].close()
    assert [one.wait() for one in processes[1:]] == [None, None]


def test_a_first_process_that_says_nothing_is_not_waited_for_for_ever(
    processes: list[Rendezvous], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "PATIENCE_S", 0.3)
    with pytest.raises(ConfigError, match=r"process 2 of 3: .* did not name the directory"):
        processes[2].wait()


def test_another_attempt_has_a_directory_of_its_own(processes: list[Rendezvous]) -> None:
    processes[0].name(Path("a"))
    environment = dict(processes[1]._environment)
    environment |= {"TORCHELASTIC_RESTART_COUNT": "1", "SLURM_RESTART_COUNT": "1"}
    again = [Rendezvous(environment | dict.fromkeys(("RANK", "SLURM_PROCID"), r)) for r in "01"]
    again[0].name(Path("b"))
    assert again[1].wait() == Path.cwd() / "b"
    assert processes[1].wait() == Path.cwd() / "a"


@pytest.mark.parametrize(
    ("environment", "is_launch"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0"}, True),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, True),
        ({"SLURM_NTASKS": "8"}, False),  # salloc, without srun
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, False),  # sbatch, without srun
        (  # salloc that opens a shell as a step
            {"SLURM_NTASKS": "8", "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"},
            False,
        ),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "1"}, False),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2"}, True),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, False),  # of Lightning's own launch
    ],
)
def test_of_launch(
    environment: dict[str, str], is_launch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", environment)
    assert (Rendezvous.of_launch() is not None) == is_launch
