from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from proassist_lit.errors import ConfigError
from proassist_lit.sweep import launcher
from proassist_lit.sweep.launcher import check_installed, check_processes, take_gpu
from proassist_lit.trainer_config import TrainerConfig

BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
LOCAL = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"
SLURM = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"


@pytest.mark.parametrize(("target", "name"), [(BASIC, "basic"), (JOBLIB, "joblib"),
                                              (LOCAL, "submitit_local")])  # fmt: skip
def test_job_of_many_processes_is_refused_where_it_has_one(target: str, name: str) -> None:
    said = rf"trainer\.devices=2 starts .* hydra/launcher={name} cannot.*submitit_slurm"
    with pytest.raises(ConfigError, match=said):
        check_processes(TrainerConfig(devices="2"), target)


def test_job_on_many_machines_is_refused_where_it_has_one_process() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.devices=1 trainer\.num_nodes=2 starts"):
        check_processes(TrainerConfig(num_nodes=2), BASIC)


def test_multirun_of_a_launch_of_many_processes_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="cannot be started by torchrun or srun"):
        check_processes(TrainerConfig(), BASIC)


@pytest.mark.parametrize(
    ("devices", "target"), [("1", BASIC), ("2", SLURM), ("2", "others.Launcher")]
)
def test_jobs_that_can_run_are_let_pass(devices: str, target: str) -> None:
    check_processes(TrainerConfig(devices=devices), target)


@pytest.mark.parametrize(
    ("accelerator", "num_gpus", "refused"), [("auto", 2, True), ("auto", 1, False),
                                             ("cpu", 2, False)],
)  # fmt: skip
def test_auto_means_as_many_as_there_are(
    accelerator: str, num_gpus: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    trainer = TrainerConfig(devices="auto", accelerator=accelerator)
    if not refused:
        check_processes(trainer, BASIC)
        return
    with pytest.raises(ConfigError, match=r"trainer\.devices=auto starts several processes"):
        check_processes(trainer, BASIC)


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a process that sees four GPUs unless it is told of fewer."""
    environment: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(launcher, "_held", [])

    def count() -> int:
        names = environment.get("CUDA_VISIBLE_DEVICES")
        return 4 if names is None else len(names.split(","))

    monkeypatch.setattr(torch.cuda, "device_count", count)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    return environment


@pytest.mark.parametrize(
    ("target", "visible", "job_num", "left"),
    [
        (JOBLIB, None, 0, "0"), (JOBLIB, None, 6, "2"), (LOCAL, "0,1,2,3", 7, "3"),
        (JOBLIB, "5,2", 3, "2"), (JOBLIB, "GPU-aa,GPU-bb", 2, "GPU-aa"), (JOBLIB, "7", 3, "7"),
        (BASIC, None, 6, None), (SLURM, None, 6, None), ("others.Launcher", None, 6, None),
    ],
)  # fmt: skip
def test_jobs_side_by_side_take_a_gpu_each(
    target: str,
    visible: str | None,
    job_num: int,
    left: str | None,
    four_gpus: dict[str, str],
    tmp_path: Path,
) -> None:
    if visible is not None:
        four_gpus["CUDA_VISIBLE_DEVICES"] = visible
    take_gpu(job_num, target, tmp_path)
    assert four_gpus.get("CUDA_VISIBLE_DEVICES") == left


def test_a_process_keeps_the_gpu_of_its_first_job(
    four_gpus: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    take_gpu(2, JOBLIB, tmp_path)
    take_gpu(3, JOBLIB, tmp_path)
    assert four_gpus["CUDA_VISIBLE_DEVICES"] == "2"
    del four_gpus["CUDA_VISIBLE_DEVICES"]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)  # it no longer looks
    take_gpu(3, JOBLIB, tmp_path)
    assert "CUDA_VISIBLE_DEVICES" not in four_gpus


def test_without_locks_a_gpu_is_that_of_the_number(
    four_gpus: dict[str, str], tmp_path: Path
) -> None:
    take_gpu(6, JOBLIB, tmp_path / "gone")
    assert four_gpus["CUDA_VISIBLE_DEVICES"] == "2"


def test_no_two_processes_have_a_gpu_while_another_is_free(
    four_gpus: dict[str, str], tmp_path: Path
) -> None:
    def take_in_another_process(job_num: int) -> str:
        four_gpus.clear()
        take_gpu(job_num, JOBLIB, tmp_path)
        return four_gpus["CUDA_VISIBLE_DEVICES"]

    assert [take_in_another_process(number) for number in (0, 4, 8)] == ["0", "1", "2"]
    launcher._held[0].release()  # as the end of a process does
    assert [take_in_another_process(number) for number in (6, 7)] == ["3", "0"]
    assert take_in_another_process(6) == "2"  # all are taken: it is shared


def test_names_of_launchers_are_those_that_hydra_uses() -> None:
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()  # has them register
    found = ConfigStore.instance().load
    for name, target in (("basic", BASIC), ("joblib", JOBLIB), ("submitit_local", LOCAL),
                         ("submitit_slurm", SLURM)):  # fmt: skip
        assert found(f"hydra/launcher/{name}.yaml").node._target_ == target


@pytest.mark.parametrize(
    ("choice", "extra"),
    [("hydra/launcher=joblib", "sweep"), ("hydra/launcher=submitit_local", "slurm"),
     ("hydra/launcher=submitit_slurm", "slurm"), ("hydra/sweeper=proassist_optuna", "sweep")],
)  # fmt: skip
def test_what_is_not_installed_is_named_with_the_remedy(
    choice: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_installed(choice)
    monkeypatch.setattr(launcher, "find_spec", lambda name: None)
    check_installed("hydra/launcher=basic")
    with pytest.raises(ConfigError, match=rf"{choice}: needs .* pip install -e '\.\[{extra}\]'"):
        check_installed(choice)
