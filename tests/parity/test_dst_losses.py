"""The DST extension: the four losses and decision logits against its own code's numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import Decision, HeadType, ModelConfig
from proassist_lit.objectives import Losses, ObjectiveConfig, ObjectiveKind, compute_losses
from proassist_lit.types import IGNORE_INDEX, Batch
from tests.parity.dst_numbers import FILE, dst_chat, stored_batch
from tests.parity.numbers import build_model, head_name, needs, tensors

pytestmark = needs("dst.json", "dst.safetensors", "known_reference_bugs.json")

HEADS = {
    "speaking_decision_head": "speak_head",
    "dst_update_head": "dst_head",
    "dst_generation_head": "dst_output_head",
}


def make_model(name: str) -> AssistantModel:
    entry = FILE["models"][name]
    weights = {}
    for key, value in tensors("dst.safetensors").items():
        if key.startswith(entry["backbone_prefix"]):
            weights[key.removeprefix(entry["backbone_prefix"])] = value
        elif key.startswith(entry["heads_prefix"]):
            key = key.removeprefix(entry["heads_prefix"])
            ours = HEADS[key.partition(".")[0]]
            weights[head_name(key, ours) if ours != "dst_output_head" else f"{ours}.weight"] = value
    config = ModelConfig(
        chat="dst_ext",
        head=HeadType(entry["binary_decision_head_type"]),
        decision=Decision.HEAD if entry["use_binary_decision_heads"] else Decision.OPENING_TOKEN,
        dst_output_head=entry["use_separate_generation_heads"],
    )
    return build_model(entry, weights, config, dst_chat())


def loss_id(case: dict[str, Any]) -> str:
    keys = ("model", "batch", "precision", "mode", "binary_loss_weight")
    return "-".join(str(case[key]) for key in keys)


def compute(case: dict[str, Any]) -> tuple[Losses, AssistantModel, Batch]:
    model = make_model(case["model"]).train(case["mode"] == "train")
    model = model.to(getattr(torch, case["precision"]))
    weight = case["binary_loss_weight"]
    by_head = model.decision is Decision.HEAD
    config = ObjectiveConfig(
        kind=ObjectiveKind.PER_TOKEN if by_head else ObjectiveKind.TOKEN_PROB,
        speaking_binary_weight=weight,
        dst_binary_weight=weight,
    )
    batch = stored_batch(case["batch"])
    return compute_losses(model, batch, config), model, batch


@pytest.mark.parametrize("case", FILE.get("loss_cases", []), ids=loss_id)
@torch.inference_mode()
def test_the_four_losses_equal_the_reference(case: dict[str, Any]) -> None:
    losses, model, batch = compute(case)
    close: dict[str, float] = (
        {"rtol": 0.0, "atol": 1e-4} if case["precision"] == "float32" else
        {"rtol": 2e-2, "atol": 0.0}
    )  # fmt: skip
    assert losses.dst_response is not None
    assert losses.dst is not None

    for ours, name in (
        (losses.total, "loss"),
        (losses.response.mean(), "speaking_gen_loss"),
        (losses.dst_response.mean(), "dst_gen_loss"),
        (losses.speak.balanced(), "speaking_binary_loss"),
        (losses.dst.balanced(), "dst_binary_loss"),
    ):
        torch.testing.assert_close(ours.float(), torch.tensor(case[name]), **close)
    if case["precision"] == "float32":
        out = model(batch)
        for logits, pos, neg, name in (
            (out.speak_logits, batch.pos_frame_mask, batch.neg_frame_mask, "speaking"),
            (out.dst_logits, batch.dst_pos_frame_mask, batch.dst_neg_frame_mask, "dst"),
        ):
            yes = logits >= 0
            assert int((pos | neg).sum()) == case[f"{name}_num_targets"]
            assert int((yes & (pos | neg)).sum()) == case[f"{name}_num_pred_pos"]
            right = (yes & pos) | (~yes & neg)
            assert int(right.sum()) == case[f"{name}_num_correct"]


@pytest.mark.parametrize("name", FILE.get("models", {}))
def test_a_batch_without_dst_labels_has_losses(name: str) -> None:
    """The reference may read names there that it has not defined."""
    case = next(c for c in FILE["loss_cases"] if (c["model"], c["precision"]) == (name, "float32"))
    model, batch = make_model(name), stored_batch(case["batch"])
    batch = replace(batch, dst_labels=torch.full_like(batch.dst_labels, IGNORE_INDEX))

    losses = compute_losses(model, batch, ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN))
    losses.total.backward()

    assert losses.dst_response is not None
    assert losses.dst is not None
    assert losses.dst_response.count == 0
    rest = losses.response.mean() + losses.speak.balanced() + losses.dst.balanced()
    torch.testing.assert_close(losses.total, rest)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def outputs() -> list[tuple[str, str]]:
    if not FILE:
        return []
    keys = [key.split(".") for key in tensors("dst.safetensors") if key.startswith("out.")]
    return sorted({(key[1], key[2]) for key in keys})


@pytest.mark.parametrize(("model_name", "batch_name"), outputs())
@torch.inference_mode()
def test_decision_logits_equal_the_reference(model_name: str, batch_name: str) -> None:
    model, batch = make_model(model_name).eval(), stored_batch(batch_name)
    real = batch.attention_mask == 1

    out = model(batch)

    for head, name in (
        (model.speak_head, "speaking_logits"),
        (model.dst_head, "dst_update_logits"),
    ):
        theirs = tensors("dst.safetensors")[f"out.{model_name}.{batch_name}.{name}"]
        ours = head(out.hidden)
        if model.decision is Decision.OPENING_TOKEN:
            ours = ours.sigmoid()
        torch.testing.assert_close(ours[real], theirs.reshape(ours.shape)[real], rtol=0, atol=1e-4)
