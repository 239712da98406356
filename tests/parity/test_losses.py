"""Losses, probabilities and gradients against numbers made by the reference's own code."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from proassist_lit.losses import SumCount
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import Decision, HeadType, ModelConfig
from proassist_lit.objectives import Losses, ObjectiveConfig, ObjectiveKind, compute_losses
from proassist_lit.types import IGNORE_INDEX, Batch
from tests.parity.numbers import (
    build_model,
    head_name,
    llama_chat,
    needs,
    numbers,
    our_weights,
    tensors,
)

pytestmark = needs("losses.json", "losses.safetensors", "known_reference_bugs.json")

FILE = numbers("losses.json")
BATCHES = list(FILE.get("batches", {}))
CASES = FILE.get("cases", [])
BUGS = numbers("known_reference_bugs.json").get("losses", [])
CLOSE = {"rtol": 0.0, "atol": 1e-4}


def case_id(case: dict[str, Any]) -> str:
    weight = case["w2t_logit_weight"] if "nohead" in case["batch"] else case["binary_loss_weight"]
    cut = f"-cut{case['max_seq_len']}" if "max_seq_len" in case else ""
    return f"{case['batch']}-{case['mode']}-{weight}-{case['pass_masks']}{cut}"


def make_model(name: str) -> AssistantModel:
    entry = FILE["models"][name]
    sizes = entry["config"]
    has_head = sizes["use_binary_decision_head"]
    weights = {
        key.removeprefix(entry["prefix"]): value
        for key, value in tensors("losses.safetensors").items()
        if key.startswith(entry["prefix"])
    }
    config = ModelConfig(
        chat="llama3",
        dst=False,
        head=HeadType(sizes["binary_decision_head_type"]),
        decision=Decision.HEAD if has_head else Decision.SILENT_TOKEN,
    )
    chat = llama_chat(sizes["img_sep_token"])
    assert chat.silent_id == sizes["w2t_target_id"]
    return build_model(sizes, our_weights(weights), config, chat)


def make_batch(name: str, *, cut: int | None = None) -> Batch:
    """The reference's collated tensors; its labels are targets of the next token."""
    entry = FILE["batches"][name]
    stored = {
        key.removeprefix(entry["prefix"]): value[:, :cut] if value.ndim == 2 else value
        for key, value in tensors("losses.safetensors").items()
        if key.startswith(entry["prefix"]) and not key.endswith("image_embeds")
    }
    ids, neg = stored["input_ids"], stored["neg_frame_mask"].bool()
    image_mask = ids == FILE["models"][entry["model"]]["config"]["img_token_id"]
    features = tensors("losses.safetensors")[entry["prefix"] + "image_embeds"]
    targets = stored["labels"].masked_fill(neg, IGNORE_INDEX)
    labels = torch.full_like(targets, IGNORE_INDEX)
    labels[:, 1:] = targets[:, :-1]
    no = torch.zeros_like(neg)
    pos = stored["pos_frame_mask"].bool()
    return Batch(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        image_mask=image_mask,
        image_features=features[: int(image_mask.sum())],
        labels=labels,
        dst_labels=torch.full_like(labels, IGNORE_INDEX),
        pos_frame_mask=pos,
        neg_frame_mask=neg,
        dst_pos_frame_mask=no,
        dst_neg_frame_mask=no,
        speak_targets=pos.float(),
        dst_targets=no.float(),
    )


def cut_as_the_reference(batch: Batch) -> Batch:
    """It learns one token past the cut; ours learns nothing there. The token is that one."""
    last = torch.arange(batch.input_ids.shape[1]) == batch.input_ids.shape[1] - 1
    return replace(
        batch,
        pos_frame_mask=batch.pos_frame_mask & ~last,
        neg_frame_mask=batch.neg_frame_mask & ~last,
    )


def objective(case: dict[str, Any], model: AssistantModel) -> ObjectiveConfig:
    by_head = model.decision is Decision.HEAD
    return ObjectiveConfig(
        kind=ObjectiveKind.PER_TOKEN if by_head else ObjectiveKind.TOKEN_PROB,
        speaking_binary_weight=case["binary_loss_weight"],
        silent_logit_weight=case["w2t_logit_weight"],
    )


def lm_loss_of(losses: Losses, model: AssistantModel) -> Tensor:
    if model.decision is Decision.SILENT_TOKEN:
        return losses.total
    return losses.response.mean()


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_losses_and_gradients_equal_the_reference(case: dict[str, Any]) -> None:
    model = make_model(case["model"]).train(case["mode"] == "train")
    batch = make_batch(case["batch"])
    if "max_seq_len" in case:
        batch = cut_as_the_reference(make_batch(case["batch"], cut=case["max_seq_len"] + 1))
    config = objective(case, model)
    has_speak = "w2t_loss" in case["log_dict"] or model.decision is Decision.SILENT_TOKEN
    if not has_speak:  # without a silent frame the reference drops the decision; see below
        config = replace(config, speaking_binary_weight=0.0)

    losses = compute_losses(model, batch, config)

    assert_close(losses.total, case["total_loss"])
    assert_close(lm_loss_of(losses, model), case["log_dict"]["lm_loss"])
    if "w2t_loss" in case["log_dict"]:
        assert_close(losses.speak.balanced(), case["log_dict"]["w2t_loss"])
    if "labels_after_num_valid" in case:
        silent = 0 if model.decision is Decision.HEAD else int(losses.speak.neg.count)
        assert int(losses.response.count) + silent == case["labels_after_num_valid"]
    if case["mode"] == "train" and "grad_norms" in case:
        losses.total.backward()
        parameters = dict(model.named_parameters())
        for name, norm in case["grad_norms"].items():
            gradient = parameters[our_name(name)].grad
            assert_close(gradient.norm() if gradient is not None else torch.tensor(0.0), norm)


def our_name(name: str) -> str:
    if name.startswith("binary_decision_head"):
        return head_name(name, "speak_head")
    if name.startswith("mm_projector"):
        return name.replace("mm_projector", "projector")
    return f"lm.{name}"


def assert_close(ours: Tensor, theirs: float) -> None:
    torch.testing.assert_close(ours.detach(), torch.tensor(theirs), **CLOSE)


@pytest.mark.parametrize("name", BATCHES)
@torch.inference_mode()
def test_outputs_equal_the_reference(name: str) -> None:
    model, batch = make_model(FILE["batches"][name]["model"]).eval(), make_batch(name)
    want = {
        key.removeprefix(f"out.{name}."): value
        for key, value in tensors("losses.safetensors").items()
        if key.startswith(f"out.{name}.")
    }

    embeds = model.embed(batch.input_ids, batch.image_mask, batch.image_features)
    out = model(batch)

    first = want["joint_embed_row0_first64"]
    torch.testing.assert_close(embeds[0, : len(first)], first, **CLOSE)
    last = model.lm_logits(out.hidden[0, -8:])
    torch.testing.assert_close(last, want["logits_first_row_last8"], rtol=1e-5, atol=1e-3)
    # theirs is P(not talk), everywhere; ours P(speak)
    not_talk = torch.sigmoid(-model.speak_head(out.hidden))
    torch.testing.assert_close(not_talk, want["w2t_probs_eval"].reshape(not_talk.shape), **CLOSE)
    if "w2t_logits" in want:
        theirs = want["w2t_logits"].reshape(out.speak_logits.shape)
        torch.testing.assert_close(-out.speak_logits, theirs, **CLOSE)


def balanced_without(name: str, column: str) -> tuple[Losses, AssistantModel, Batch]:
    batch = make_batch(name)
    batch = replace(batch, **{column: torch.zeros_like(batch.pos_frame_mask)})
    model = make_model(FILE["batches"][name]["model"])
    return compute_losses(model, batch, ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN)), model, batch


def head_batches() -> list[str]:
    return [
        name
        for name in BATCHES
        if FILE["models"][FILE["batches"][name]["model"]]["config"]["use_binary_decision_head"]
    ]


def without_speaking() -> list[Any]:
    """Batches that a fault names, with the mean over their silent frames; or that there is none."""
    found = [
        pytest.param(name, bug["expected"], id=name)
        for bug in BUGS
        if isinstance(bug.get("expected"), dict)
        and {"mean_neg_bce", "lm_loss"} <= {*bug["expected"]}
        for name in head_batches()
        if re.search(rf"(?<![\w/]){re.escape(name)}(?![\w/])", bug["explanation"])
    ]
    none = pytest.mark.skip(reason="no fault tells the mean over the silent frames of a batch")
    return found or [pytest.param("", {}, marks=none, id="none")]


@pytest.mark.parametrize(("name", "expected"), without_speaking())
def test_a_batch_without_frames_to_speak_at_keeps_the_silent_ones(
    name: str, expected: dict[str, float]
) -> None:
    losses, model, _ = balanced_without(name, "pos_frame_mask")

    assert_close(losses.speak.balanced(), expected["mean_neg_bce"])
    assert_close(losses.response.mean(), expected["lm_loss"])
    losses.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", head_batches())
def test_a_batch_without_silent_frames_keeps_those_to_speak_at(name: str) -> None:
    losses, model, batch = balanced_without(name, "neg_frame_mask")

    with torch.no_grad():
        logits = model(batch).speak_logits[batch.pos_frame_mask]
    want = torch.nn.functional.softplus(-logits).mean()
    torch.testing.assert_close(losses.speak.balanced().detach(), want)
    assert losses.speak.neg.count == 0
    torch.testing.assert_close(losses.total, losses.response.mean() + losses.speak.balanced())


@pytest.mark.parametrize("name", head_batches())
def test_a_cut_batch_has_finite_losses_and_no_label_behind_the_cut(name: str) -> None:
    whole = make_batch(name)
    batch = make_batch(name, cut=whole.input_ids.shape[1] // 2)

    losses = compute_losses(
        make_model(FILE["batches"][name]["model"]), batch,
        ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN),
    )  # fmt: skip

    assert torch.isfinite(losses.total)
    kept = batch.input_ids.shape[1]
    assert int(losses.speak.neg.count) == int(whole.neg_frame_mask[:, :kept].sum())
    assert int(losses.response.count) == int((whole.labels[:, :kept] != IGNORE_INDEX).sum())


@pytest.mark.parametrize("name", head_batches())
def test_labels_without_masks_stay_labels(name: str) -> None:
    batch = make_batch(name)
    no = torch.zeros_like(batch.pos_frame_mask)
    model = make_model(FILE["batches"][name]["model"])

    losses = compute_losses(
        model, replace(batch, pos_frame_mask=no, neg_frame_mask=no),
        ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN),
    )  # fmt: skip

    with_masks = compute_losses(model, batch, ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN))
    torch.testing.assert_close(losses.response.mean(), with_masks.response.mean())
    assert losses.speak.balanced() == 0
    assert isinstance(losses.response, SumCount)
