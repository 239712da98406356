"""Training goes on in another number of processes than it began in, as if it had not stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from proassist_lit.errors import CheckpointError
from proassist_lit.lit.sharded_strategy import check_complete, renumbered
from tests.fakes import tiny_model
from tests.lit import legs
from tests.lit.resuming import curves

REPO = Path(__file__).parents[2]
FSDP, DDP = {"strategy": "fsdp2"}, {"strategy": "ddp", "dropout": 0.1}
LORA = {**FSDP, "lora": True}


def two_processes(folder: Path, asked: list[dict[str, Any]]) -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
        "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0",
        "-m", "tests.lit.legs", str(folder), json.dumps(asked),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]


def one_process(folder: Path, name: str, **asked: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        legs.train(folder, name, **asked)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of runs that nobody stopped, and of others, named by where they began and went on."""
    base, stop = tmp_path_factory.mktemp("runs"), {"steps": legs.STOP}
    one_process(base, "one")
    one_process(base, "one_fsdp", **stop)
    whole = [{"name": "fsdp", **FSDP}, {"name": "ddp", **DDP}, {"name": "lora", **LORA}]
    stopped = [
        {"name": "fsdp_fsdp", **FSDP, **stop}, {"name": "ddp_ddp", **DDP, **stop},
        {"name": "lora_lora", **LORA, **stop},
        {"name": "ddp_one", **DDP, **stop, "dropout": 0.0},
        {"name": "half", **FSDP, "precision": "bf16-true"},
    ]  # fmt: skip
    two_processes(base, whole + stopped)
    shutil.copytree(base / "fsdp_fsdp", base / "fsdp_one")
    one_process(base, "fsdp_one")
    one_process(base, "ddp_one")
    names = {"fsdp_fsdp": FSDP, "one_fsdp": FSDP, "ddp_ddp": DDP, "lora_lora": LORA}
    two_processes(base, [{"name": name, **asked} for name, asked in names.items()])
    return base


def saved(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert found["global_step"] == legs.STEPS
    return found


def losses(run: Path) -> list[dict[str, float]]:
    own = ("padding_share", "frames")  # of a process, not of what is learnt
    return [
        {k: float(v) for k, v in row.items() if not any(part in k for part in own)}
        for row in curves(run)
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here
@pytest.mark.parametrize(
    ("name", "whole"), [("fsdp_fsdp", "fsdp"), ("ddp_ddp", "ddp"), ("lora_lora", "lora")]
)
def test_as_many_processes_go_on_bit_for_bit(name: str, whole: str, runs: Path) -> None:
    assert curves(runs / name) == curves(runs / whole)
    ours, theirs = saved(runs / name), saved(runs / whole)
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(ours[part], theirs[part], rtol=0, atol=0)
    assert len(ours["callbacks"]["RandomState"]["others"]) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here
@pytest.mark.parametrize("name", ["fsdp_one", "one_fsdp", "ddp_one"])
def test_another_number_of_processes_goes_on_to_the_same_numbers(name: str, runs: Path) -> None:
    want, got = losses(runs / "one"), losses(runs / name)
    assert len(want) == legs.STEPS + 2  # validations
    for mine, other in zip(got, want, strict=True):
        assert mine == pytest.approx(other, rel=1e-5, abs=1e-5)
    ours, theirs = saved(runs / name), saved(runs / "one")
    torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], rtol=0, atol=1e-4)
    torch.testing.assert_close(
        ours["optimizer_states"], theirs["optimizer_states"], rtol=1e-3, atol=1e-6
    )
    # Two processes leave out the last batch of an epoch, in which only one would have had work.
    place, alone = (found["ConversationDataModule"] for found in (ours, theirs))
    assert place == alone | {"of": 7 if name == "one_fsdp" else 8}
    assert alone["of"] == 8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here
def test_shards_leave_out_a_backbone_that_can_be_read_again(runs: Path) -> None:
    names = saved(runs / "lora")["state_dict"].keys()
    assert any("lora" in name for name in names)
    assert not any("base_layer" in name or "norm" in name for name in names)
    assert any("norm" in name for name in saved(runs / "fsdp")["state_dict"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here
def test_shards_have_the_type_of_the_precision(runs: Path) -> None:
    half = saved(runs / "half")["state_dict"]
    assert {weight.dtype for weight in half.values()} == {torch.bfloat16}
    ours, theirs = losses(runs / "half"), losses(runs / "fsdp")
    assert ours[0]["train/loss"] == pytest.approx(theirs[0]["train/loss"], rel=1e-2)
    assert ours[0]["train/loss"] != theirs[0]["train/loss"]


def test_parameters_of_an_optimizer_are_renumbered_in_order() -> None:
    state = {
        "state": {0: {"step": 1}, 4: {"step": 2}, 2: {"step": 3}},
        "param_groups": [{"params": [0, 4], "lr": 0.1}, {"params": [2], "lr": 0.2}],
    }
    assert renumbered(state, None) == {
        "state": {0: {"step": 1}, 1: {"step": 2}, 2: {"step": 3}},
        "param_groups": [{"params": [0, 1], "lr": 0.1}, {"params": [2], "lr": 0.2}],
    }
    assert renumbered(state, ["a", "b", "c"])["state"] == {
        "a": {"step": 1}, "b": {"step": 2}, "c": {"step": 3}
    }  # fmt: skip
    with pytest.raises(CheckpointError, match=r"trains 3 tensors, this run's 2; go on with the"):
        renumbered(state, ["a", "b"])


def test_weights_that_are_missing_are_named() -> None:
    model = tiny_model()
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    check_complete("a.ckpt", state, model)
    name = sorted(state)[-1]
    del state[name]
    with pytest.raises(CheckpointError, match=rf"a\.ckpt: 1 tensors .*{re.escape(name)}; go on"):
        check_complete("a.ckpt", state, model)
