"""Several processes train and answer as one does."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed.distributed_c10d as c10d
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from proassist_lit.errors import ConfigError
from proassist_lit.lit.strategy import build_strategy
from proassist_lit.trainer_config import Parallel, TrainerConfig
from tests.exchange.fakes import base_folder
from tests.model.test_four_bits import needs_four_bits

REPO = Path(__file__).parents[2]

SETTINGS = (
    "+experiment=per_turn", "trainer.accelerator=cpu", "trainer.max_steps=4",
    "trainer.val_every_steps=2", "trainer.log_every_steps=1", "data.toy.num_train=10",
    "data.toy.num_val=2", "data.toy.num_test=2", "model.tiny.hidden_size=32",
    "model.tiny.mlp_size=64", "model.tiny.num_layers=2", "stream.max_new_tokens=3",
    "stream.max_dst_tokens=3", "stream.theta_speak=0.5", "stream.theta_dst=0.5",
    "trainer.optimizer.kind=adamw", "trainer.optimizer.lr=0.0015",
    "trainer.optimizer.weight_decay=0.01",
    "trainer.optimizer.warmup_steps=0", "trainer.optimizer.final_ratio=1.0",  # the same to any end
    "evaluation.similarity=words", "evaluation.streams_on_validation=2", "logger.wandb=disabled",
)  # fmt: skip


def run(
    folder: Path, *changes: str, start: tuple[str, ...] = (), common: tuple[str, ...] = SETTINGS
) -> Path:
    command = [sys.executable, *start, str(REPO / "train.py"), *common, *changes]
    done = subprocess.run(
        [*command, f"data.cache={folder / 'data'}"], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "site-packages" not in done.stderr, done.stderr  # a warning of a library
    [found] = (folder / "outputs/per_turn").iterdir()
    return found


def check_equal(mine: dict[str, float], other: dict[str, float]) -> None:
    """To 1e-5; what ranks frames jumps where rounding lets two frames change places."""
    assert mine.keys() == other.keys()
    for name, value in mine.items():
        ranks = name.endswith(("_auroc", "_ap"))
        assert value == pytest.approx(other[name], rel=1e-5, abs=1e-3 if ranks else 1e-5), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process."""
    return run(tmp_path_factory.mktemp("alone"), "data.batch_size=4")


def curves(run_dir: Path) -> list[dict[str, float]]:
    with (run_dir / "metrics.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    own = ("_per_s", "padding_share", "peak_memory")  # of a process, not of what is learnt
    return [{k: v for k, v in row.items() if not any(part in k for part in own)} for row in rows]


TORCHRUN = (
    "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d",
    "--rdzv-endpoint=127.0.0.1:0",
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        pytest.param(("trainer.strategy=ddp",), TORCHRUN, id="torchrun", marks=pytest.mark.road),
        pytest.param(("trainer.strategy=fsdp2",), (), id="fsdp2", marks=pytest.mark.road),
        pytest.param(("trainer.strategy=ddp",), (), id="ddp", marks=pytest.mark.slow),
        pytest.param(("trainer.micro_tokens=600",), (), id="parts", marks=pytest.mark.slow),
        pytest.param(
            ("trainer.strategy=fsdp2", "trainer.micro_tokens=600"),
            (),
            id="fsdp2_parts",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_processes_give_the_numbers_of_one(
    changes: tuple[str, ...], start: tuple[str, ...], alone: Path, tmp_path: Path
) -> None:
    two = run(tmp_path, "trainer.devices=2", "data.batch_size=2", *changes, start=start)
    want, got = curves(alone), curves(two)
    assert len(want) == len(got) >= 6
    for mine, other in zip(got, want, strict=True):
        check_equal(mine, other)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (alone, two)]
    numbers, others = ({k: v for k, v in m.items() if isinstance(v, float)} for m in metrics)
    assert len(numbers) > 100
    check_equal(others, numbers)
    streams = [sorted(p.name for p in (folder / "streams").iterdir()) for folder in (alone, two)]
    assert streams[0] == streams[1]
    assert (two / "report.html").exists()


@needs_four_bits
@pytest.mark.road
def test_four_bits_in_shards_are_trained_and_streamed_as_whole_ones(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base")
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    changes = (
        f"model.backbone={base}", "model.chat=compact", "model.train=qlora",
        "model.lora.rank=3", "model.lora.dropout=0", "trainer.max_steps=2",
    )  # fmt: skip
    whole = run(one, "data.batch_size=4", *changes)
    parts = run(
        two, "data.batch_size=2", "trainer.devices=2", "trainer.strategy=fsdp2", *changes
    )  # fmt: skip
    want, got = curves(whole), curves(parts)
    assert len(want) == len(got) >= 3
    for mine, other in zip(got, want, strict=True):
        assert mine.keys() == other.keys()
        for name in (name for name in mine if name.startswith(("train/loss", "val/loss"))):
            assert mine[name] == pytest.approx(other[name], rel=0.01), name  # of bfloat16
    names = [sorted(p.name for p in (folder / "streams").iterdir()) for folder in (whole, parts)]
    assert names[0] == names[1]
    saved = [
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for folder in (whole, parts)
    ]
    assert saved[0].keys() == saved[1].keys()
    assert not any(tensor.dtype is torch.uint8 for tensor in saved[1].values())


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_joined_batches_of_two_processes_are_those_of_one(strategy: str, tmp_path: Path) -> None:
    joined = "trainer.accumulate=2"
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    parallel = ("trainer.devices=2", f"trainer.strategy={strategy}")
    want = curves(run(one, "data.batch_size=2", joined))
    got = curves(run(two, "data.batch_size=1", joined, *parallel))
    assert len(want) == len(got) >= 6
    for mine, other in zip(got, want, strict=True):
        check_equal(mine, other)


@pytest.mark.slow
def test_shards_are_saved_as_one_process_saves(alone: Path, tmp_path: Path) -> None:
    sharded = run(tmp_path, "trainer.strategy=fsdp2", "trainer.devices=2", "data.batch_size=2")
    ours, theirs = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        for folder in (sharded, alone)
    )
    assert ours["global_step"] == theirs["global_step"]
    assert ours["ConversationDataModule"] == theirs["ConversationDataModule"]
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    for name, tensor in theirs["state_dict"].items():
        assert type(ours["state_dict"][name]) is torch.Tensor
        torch.testing.assert_close(ours["state_dict"][name], tensor, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_same_step(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    command = [
        sys.executable, str(REPO / "train.py"), *SETTINGS, "trainer.devices=2", "data.batch_size=2",
        "trainer.max_steps=500", "trainer.val_every_steps=500", f"hydra.run.dir={run_dir}",
        f"data.cache={tmp_path / 'data'}",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, text=True, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    table = run_dir / "metrics.csv"
    until = time.monotonic() + 200
    while not (table.exists() and len(table.read_text().splitlines()) > 3):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.1)
    [second] = [
        int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat")
        if path.read_text().rpartition(")")[2].split()[1] == str(process.pid)
        and b"train.py" in (path.parent / "cmdline").read_bytes()
    ]  # fmt: skip
    os.kill(second, signal.SIGTERM)
    _, said = process.communicate(timeout=100)
    step = int(re.search(r"Stopped at step (\d+) by SIGTERM; the state", said)[1])
    assert step % 5 == 0
    saved = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == step


def test_strategies() -> None:
    def built(**settings: object) -> object:
        return build_strategy(TrainerConfig(**settings))  # type: ignore[arg-type]

    assert built() == "auto"
    assert built(devices="auto") == "auto"
    assert isinstance(built(devices="2"), DDPStrategy)
    assert isinstance(built(num_nodes=2), DDPStrategy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "device_count", lambda: 2)
        assert isinstance(built(devices="auto"), DDPStrategy)
    assert isinstance(built(devices="2", strategy=Parallel.FSDP2), ModelParallelStrategy)
    with pytest.raises(ConfigError, match="fsdp2 needs a number of devices"):
        built(devices="auto", strategy=Parallel.FSDP2)


@pytest.mark.parametrize("strategy", [Parallel.DDP, Parallel.FSDP2])
def test_processes_wait_for_the_streams_of_the_slowest(strategy: Parallel) -> None:
    built = build_strategy(TrainerConfig(devices="2", strategy=strategy))
    assert isinstance(built, DDPStrategy | ModelParallelStrategy)
    assert built._timeout is not None  # which Lightning begins the group with
    assert built._timeout >= timedelta(hours=4)


@pytest.mark.parametrize("strategy", [Parallel.DDP, Parallel.FSDP2])
@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda", "cpu"])
def test_processes_on_gpus_exchange_cpu_tensors_too(
    strategy: Parallel, accelerator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    built = build_strategy(TrainerConfig(devices="2", accelerator=accelerator, strategy=strategy))
    assert isinstance(built, DDPStrategy | ModelParallelStrategy)
    device = torch.device("cpu" if accelerator == "cpu" else "cuda", 0)
    built.parallel_devices = [device]
    built.cluster_environment = LightningEnvironment()
    backend = built._get_process_group_backend()  # what Lightning begins the group with
    by_device = c10d.BackendConfig(c10d.Backend(backend)).get_device_backend_map()
    assert by_device["cpu"] == "gloo"  # metrics are summed up there
    if accelerator == "cpu":
        assert backend == "gloo"
    else:
        assert by_device["cuda"] == "nccl"
