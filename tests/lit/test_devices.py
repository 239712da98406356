from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import lightning as L
import pytest
from lightning.fabric.plugins.precision import precision
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.plugins.environments import (
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from proassist_lit.config import RunConfig
from proassist_lit.data.config import DataConfig
from proassist_lit.errors import ConfigError
from proassist_lit.lit.build import build_trainer
from proassist_lit.lit.devices import check_devices
from proassist_lit.lit.run import train
from proassist_lit.run_directory import RunDirectory
from proassist_lit.trainer_config import PRECISIONS, TrainerConfig


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for accelerator in (CUDAAccelerator, MPSAccelerator):
        monkeypatch.setattr(accelerator, "is_available", lambda: False)


def test_precisions_are_those_of_lightning() -> None:
    names = get_args(precision._PRECISION_INPUT_STR), get_args(precision._PRECISION_INPUT_STR_ALIAS)
    assert {*names[0], *names[1]} - {*PRECISIONS} == {
        "transformer-engine", "transformer-engine-float16",  # would look into the batch
    }  # fmt: skip
    assert {*PRECISIONS} < {*names[0], *names[1]}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"accelerator": "gpu"},
            r"accelerator=gpu: this machine has no GPU .* auto or cpu",
        ),
        ({"accelerator": "cuda"}, r"trainer\.accelerator=cuda: this machine has no CUDA"),
        ({"accelerator": "gpus"}, r"=gpus: Lightning knows no such .* nearest is 'gpu'"),
    ],
)
@pytest.mark.usefixtures("no_gpu")
def test_accelerator_that_is_not_there_is_refused(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_devices(TrainerConfig(**settings))


@pytest.mark.usefixtures("no_gpu")
def test_devices_that_are_there_are_taken() -> None:
    for settings in ({}, {"accelerator": "cpu", "devices": "3"}, {"devices": "auto"}):
        check_devices(TrainerConfig(**settings))


@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
def test_more_gpus_than_there_are_are_refused(
    accelerator: str, no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: True)
    with pytest.raises(ConfigError, match=r"^trainer\.devices=99: .*machine only has.* Lower it"):
        check_devices(TrainerConfig(accelerator=accelerator, devices="99"))


@pytest.mark.usefixtures("no_gpu")
def test_run_ends_before_it_begins_where_there_is_no_gpu(tmp_path: Path) -> None:
    config = RunConfig(
        data=DataConfig(cache=str(tmp_path / "data")), trainer=TrainerConfig(accelerator="gpu")
    )
    with pytest.raises(ConfigError, match=r"no GPU that torch can use"):
        train(config, tmp_path / "run")
    assert [path.name for path in tmp_path.rglob("*")] == ["run"]


def test_what_lightning_refuses_is_told_as_a_fault_of_the_settings(tmp_path: Path) -> None:
    callback: Any = L.Callback()
    logs: Any = SimpleNamespace(loggers=[], identity=callback)
    config = RunConfig(trainer=TrainerConfig(accelerator="gpus"))
    with pytest.raises(ConfigError, match=r"^trainer: Lightning refuses these settings: .+ Change"):
        build_trainer(config, RunDirectory(tmp_path), callback, logs)


SRUN = {"SLURM_STEP_ID": "0", "SLURM_NTASKS_PER_NODE": "2", "SLURM_LOCALID": "0"}
TORCHRUN = dict.fromkeys(("RANK", "LOCAL_RANK", "GROUP_RANK"), "0") | {
    "TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
}  # fmt: skip


def start(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """Let this be the first process of a job of Slurm's, with further variables."""
    common = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "train"}
    for name, value in {**common, "SLURM_NODEID": "0", "MASTER_PORT": "1", **environment}.items():
        monkeypatch.setenv(name, value)


def built_trainer(run: Path, **settings: Any) -> L.Trainer:
    callback: Any = L.Callback()
    logs: Any = SimpleNamespace(loggers=[], identity=callback)
    trainer = TrainerConfig(accelerator="cpu", **settings)
    return build_trainer(RunConfig(trainer=trainer), RunDirectory(run), callback, logs)


@pytest.mark.parametrize(
    ("devices", "environment", "kind"),
    [
        ("1", {"SLURM_NTASKS": "8"}, LightningEnvironment),
        ("2", {"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "8"}, LightningEnvironment),
        ("2", {"SLURM_NTASKS": "2", **SRUN}, SLURMEnvironment),
        ("2", {"SLURM_NTASKS": "2", **SRUN, "SLURM_JOB_NAME": "interactive"}, SLURMEnvironment),
        ("2", {"SLURM_NTASKS": "2", **SRUN, "SLURM_JOB_NAME": "bash"}, SLURMEnvironment),
        ("2", {"SLURM_NTASKS": "8", **TORCHRUN}, TorchElasticEnvironment),
    ],
)
@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "64-true"])
def test_processes_are_those_that_were_started_not_those_that_slurm_was_asked_for(
    devices: str, environment: dict[str, str], kind: type, precision: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    start(monkeypatch, environment)
    srun = tmp_path / "srun"
    srun.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)  # which Lightning looks for

    built = built_trainer(tmp_path, devices=devices, precision=precision)

    environment_of_it = built._accelerator_connector.cluster_environment
    assert type(environment_of_it) is kind
    assert built.world_size == int(devices)
    if isinstance(environment_of_it, SLURMEnvironment):  # LastCheckpoint puts it into the queue
        assert not environment_of_it.auto_requeue


TASKS_OF_2 = {"SLURM_NTASKS": "4", **SRUN}


@pytest.mark.parametrize(
    ("settings", "environment", "said"),
    [
        (  # a machine that shows each task one device
            {"devices": "auto"},
            {"SLURM_NTASKS": "2", **SRUN},
            r"^2 processes .* has 1 for each of 1 machines, .* of 1 processes.* --gpus-per-node",
        ),
        ({"devices": "auto"}, TORCHRUN, r"^2 processes .* has 1 for each .* or start one process"),
        ({"devices": "2"}, TASKS_OF_2, r"^4 processes .* has 2 for each of 1 machines"),
        (  # more than the step has, as srun -E leaves the variables of the job
            {"devices": "2"},
            {**TASKS_OF_2, "SLURM_STEP_NUM_TASKS": "2"},
            r"^2 processes .* has 2 for each of 1 machines, in a run of 4 processes",
        ),
        ({"devices": "4"}, TASKS_OF_2, r"refuses these settings: .*--ntasks-per-node=2.*does not"),
        (  # srun -n4
            {"devices": "4"},
            {"SLURM_NTASKS": "4", "SLURM_STEP_ID": "0", "SLURM_LOCALID": "0"},
            r"^srun: Lightning refuses .*--ntasks=4.*; start .* tasks of a machine by --ntasks-per",
        ),
        (
            {"devices": "2"},
            {**TORCHRUN, "WORLD_SIZE": "1"},
            r"refuses these settings: .*product \(2 \* 1\) does not match the world size \(1\)",
        ),
    ],
)
def test_processes_that_would_each_train_a_run_of_their_own_are_refused(
    settings: dict[str, str], environment: dict[str, str], said: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    start(monkeypatch, environment)
    with pytest.raises(ConfigError, match=said):
        built_trainer(tmp_path, **settings)


@pytest.mark.usefixtures("no_gpu")
def test_one_device_for_each_of_several_processes_is_told_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_devices(TrainerConfig(devices="auto"))
    start(monkeypatch, {"SLURM_NTASKS": "2", **SRUN})
    with pytest.raises(ConfigError, match=r"^2 processes .* this one has 1 for each of 1 machine"):
        check_devices(TrainerConfig(devices="auto"))
    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: True)
    monkeypatch.setattr(CUDAAccelerator, "auto_device_count", lambda: 2)
    check_devices(TrainerConfig(devices="auto"))
