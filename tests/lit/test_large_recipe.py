"""The settings of the large experiments, on a backbone of two layers and invented data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.exchange.fakes import base_folder
from tests.lit.test_processes import run

SMALL = (
    "data=toy", "data.toy.num_train=8", "data.toy.num_val=1", "data.toy.num_test=1",
    "data.num_workers=0", "data.batch_size=1", "model.lora.rank=2", "trainer.accelerator=cpu",
    "trainer.max_steps=2", "trainer.max_epochs=-1", "trainer.accumulate=2",
    "trainer.val_every_steps=2", "trainer.log_every_steps=1", "trainer.optimizer.warmup_steps=0",
    "stream.max_new_tokens=3", "stream.max_dst_tokens=3", "stream.theta_speak=0.5",
    "stream.theta_dst=0.5", "evaluation.similarity=words", "evaluation.streams_on_validation=1",
    "logger.wandb=disabled", "name=per_turn", "hydra.run.dir=outputs/per_turn/large",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "parallel"),
    [
        pytest.param("proassist_8b_i1", (), id="one", marks=pytest.mark.road),
        pytest.param(
            "proassist_8b_i1", ("trainer.devices=2", "trainer.strategy=fsdp2"), id="fsdp2",
            marks=pytest.mark.road,
        ),
        pytest.param(
            "proassist_8b_i5", ("trainer.devices=2", "trainer.strategy=ddp"), id="ddp",
            marks=pytest.mark.slow,
        ),
        pytest.param("dst_llama_3b", (), id="dst", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_large_experiment_trains_goes_on_and_streams(
    name: str, parallel: tuple[str, ...], tmp_path: Path
) -> None:
    base = base_folder(tmp_path / "base", chat="dst_ext" if name.startswith("dst") else "llama3")
    settings = (f"+experiment={name}", f"model.backbone={base}", *SMALL, *parallel)
    folder = run(tmp_path, *settings, common=())
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    before = saved["state_dict"]
    # bfloat16 is what is not trained; it is read from where it came.
    assert {tensor.dtype for tensor in before.values() if tensor.is_floating_point()} == {
        torch.float32
    }
    assert not any(key.endswith("base_layer.weight") for key in before)
    assert {key.partition(".lora_")[0].rpartition(".")[2] for key in before if ".lora_" in key} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
        *(["lm_head"] if name.startswith("proassist") else []),
    }  # fmt: skip

    again = run(tmp_path, *settings, "trainer.max_steps=3", "resume=auto", common=())
    assert again == folder
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    moved = {key for key, tensor in saved["state_dict"].items() if (tensor != before[key]).any()}
    assert any(".lora_" in key for key in moved)
    assert any("speak_head" in key for key in moved)
    assert (folder / "report.html").exists()
