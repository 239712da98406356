"""What checkpoints hold of a backbone with low-rank additions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from proassist_lit.errors import CheckpointError
from proassist_lit.lit.module import AssistantModule
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.checkpoint import PREFIX, load_weights, saved_names
from proassist_lit.model.config import ModelConfig, TrainMode
from proassist_lit.model.lora import add_lora
from proassist_lit.objectives import ObjectiveConfig
from proassist_lit.optimizer_config import OptimizerConfig
from tests.model.adapted import LORA, NEW, adapted, backbone, logits


def test_a_backbone_that_writes_more_than_it_reads_goes_on() -> None:
    model = adapted(backbone("llama"))
    layer = model.lm.get_decoder().layers[0].mlp.down_proj.base_layer
    layer.register_state_dict_post_hook(  # as layers in 4 bits do
        lambda _, state, prefix, __: state.update({f"{prefix}weight.absmax": torch.ones(3)})
    )
    module = AssistantModule(model, ObjectiveConfig(), OptimizerConfig(), num_steps=1)
    checkpoint = {"state_dict": dict(module.state_dict())}
    assert any(name.endswith("absmax") for name in checkpoint["state_dict"])
    module.on_save_checkpoint(checkpoint)
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])


def saved(model: AssistantModel) -> dict[str, Tensor]:
    names = saved_names(model)
    return {f"{PREFIX}{n}": t.clone() for n, t in model.state_dict().items() if n in names}


def test_checkpoints_hold_what_is_trained_and_go_back_into_the_same_model(tmp_path: Path) -> None:
    model, other = (adapted(backbone("llama", tied=True), ids=NEW) for _ in range(2))
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": (state := saved(model))}, path)
    assert not any("base" in name or "norm" in name for name in state)
    assert any(name.endswith("projector.0.weight") for name in state)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    load_weights(other, path)
    assert torch.equal(logits(other), logits(model))

    gone = next(name for name in state if "lora_A" in name)
    torch.save({"state_dict": {k: v for k, v in state.items() if k != gone}}, path)
    with pytest.raises(CheckpointError, match=rf"1 missing: {gone.removeprefix(PREFIX)}"):
        load_weights(other, path)


def test_lightning_saves_no_frozen_backbone_and_fills_it_in_again() -> None:
    model = adapted(backbone("llama"))
    module = AssistantModule(model, None, None, num_steps=1)  # type: ignore[arg-type]
    checkpoint = {"state_dict": dict(module.state_dict())}
    module.on_save_checkpoint(checkpoint)
    assert set(checkpoint["state_dict"]) == set(saved(model))
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])  # strict

    del checkpoint["state_dict"][f"{PREFIX}projector.0.weight"]
    module.on_load_checkpoint(checkpoint)
    with pytest.raises(RuntimeError, match=r"Missing key.*projector\.0\.weight"):
        module.load_state_dict(checkpoint["state_dict"])


@pytest.mark.parametrize("train", [TrainMode.FULL, TrainMode.FROZEN, TrainMode.LORA])
def test_a_backbone_from_scratch_is_always_saved(train: TrainMode) -> None:
    lm = backbone("llama")
    if train is TrainMode.LORA:
        add_lora(lm, LORA)
    scratch = AssistantModel(lm, vision_size=4, config=ModelConfig(train=train))
    assert saved_names(scratch) == set(scratch.state_dict())
    found = AssistantModel(lm, vision_size=4, config=ModelConfig(backbone="x", train=train))
    assert (saved_names(found) == set(found.state_dict())) == (train is TrainMode.FULL)
