"""The DST extension: sequences, batches and the four losses against its own code's numbers."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from proassist_lit.data.collate import collate
from proassist_lit.data.conversation import Conversation, UserTurn
from proassist_lit.data.sources.dst import row_to_conversation
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import Decision, HeadType, ModelConfig
from proassist_lit.objectives import Losses, ObjectiveConfig, ObjectiveKind, compute_losses
from proassist_lit.sequence.builder import TokenSequence, build_sequence, prefix_ids
from proassist_lit.sequence.chat import Chat, chat_format
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.sequence.rules import DST_EXTENSION, OURS, SequenceRules
from proassist_lit.sequence.sampling import sample_decisions
from proassist_lit.sequence.script import read_script
from proassist_lit.types import IGNORE_INDEX, Batch
from tests.parity.numbers import build_model, head_name, needs, numbers, tensors, tokenizer

pytestmark = needs("dst.json", "dst.safetensors", "known_reference_bugs.json")

FILE = numbers("dst.json")
SEQUENCES = {entry["name"]: entry for entry in FILE.get("sequences", [])}
COLLATED = {entry["name"]: entry for entry in FILE.get("collated", [])}
BUGS = {bug["name"]: bug for bug in numbers("known_reference_bugs.json").get("dst", [])}
HEADS = {
    "speaking_decision_head": "speak_head",
    "dst_update_head": "dst_head",
    "dst_generation_head": "dst_output_head",
}


@cache
def dst_chat() -> Chat:
    return Chat(chat_format("dst_ext"), tokenizer("[DST]", "[ASST]"))


def record(sample: dict[str, Any], num_frames: int) -> Conversation:
    """The sample as far as there are features for it."""
    end = max(min(sample["end_frame"], num_frames), sample["start_frame"] + 1)
    turns = [
        turn
        for turn in sample["conversation"]
        if turn["role"] == "system" or turn["start_frame"] < end
    ]
    row = {**sample, "end_frame": end, "conversation": turns}
    return row_to_conversation(row, "sample", allow_empty=True)


def build(entry: dict[str, Any], rules: SequenceRules = DST_EXTENSION) -> TokenSequence:
    script = read_script(record(entry["sample"], entry["max_frames"]), rules)
    return build_sequence(script, dst_chat(), num_tokens_per_img=1, max_seq_len=10**6)


def labels_at(labels: list[int] | Tensor) -> dict[int, int]:
    """Decision by position."""
    values = labels.tolist() if isinstance(labels, Tensor) else labels
    return {i: value for i, value in enumerate(values) if value != IGNORE_INDEX}


def test_special_tokens_are_the_reference_s() -> None:
    want, chat = FILE["tokenizer"]["eos"], dst_chat()

    assert chat.image_id == want["img_token_id"]
    assert chat.end_of_turn_id == want["eos_token_id"]
    ids = chat.tokenizer.convert_tokens_to_ids(["[DST]", "[ASST]"])
    assert ids == [want["dst_token_id"], want["asst_token_id"]]


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_equal_the_reference(name: str) -> None:
    entry = SEQUENCES[name]
    if not entry["used_frames"]:
        script = read_script(record(entry["sample"], entry["max_frames"]), DST_EXTENSION)
        assert prefix_ids(dst_chat(), script, script.initial_state) == entry["input_ids"]
        return

    sequence = build(entry)

    assert sequence.input_ids.tolist() == entry["input_ids"]
    assert sequence.labels.tolist() == entry["speaking_gen_labels"]
    assert sequence.dst_labels.tolist() == entry["dst_gen_labels"]
    assert len(sequence.frame_indices) == entry["used_frames"]


@pytest.mark.parametrize("name", [n for n, e in SEQUENCES.items() if e["used_frames"]])
def test_decisions_equal_the_reference(name: str) -> None:
    entry = SEQUENCES[name]
    rate = entry["negative_sampling_rate"]

    decisions = sample_decisions(
        build(entry), rho=rate, turn_frames=None, seed=1, epoch=0, record_id="video",
        rules=DST_EXTENSION,
    )  # fmt: skip

    for pos, neg, theirs in (
        (decisions.pos_frame_mask, decisions.neg_frame_mask, entry["speaking_labels"]),
        (decisions.dst_pos_frame_mask, decisions.dst_neg_frame_mask, entry["dst_labels"]),
    ):
        want = labels_at(theirs)
        ours = labels_at(torch.where(pos, 1, torch.where(neg, 0, IGNORE_INDEX)))
        if rate in (0.0, 1.0):
            assert ours == want
        assert sorted(ours.values()) == sorted(want.values())
        assert {i for i, v in ours.items() if v} == {i for i, v in want.items() if v}


def test_what_the_user_says_is_kept() -> None:
    assert "user_turns_never_in_input" in BUGS
    with_user = [
        entry
        for entry in SEQUENCES.values()
        if entry["used_frames"]
        and any(
            isinstance(turn, UserTurn)
            for turn in record(entry["sample"], entry["max_frames"]).turns
        )
    ]
    assert with_user
    for entry in with_user:
        chat, said = dst_chat(), record(entry["sample"], entry["max_frames"])

        ids = build(entry, OURS).input_ids.tolist()

        text = chat.tokenizer.decode(ids)
        for turn in said.turns:
            assert not isinstance(turn, UserTurn) or f"User: {turn.content.strip()}" in text


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


def stored_batch(name: str) -> Batch:
    entry = COLLATED[name]
    stored = {
        key.removeprefix(entry["prefix"]): value
        for key, value in tensors("dst.safetensors").items()
        if key.startswith(entry["prefix"])
    }
    mask = stored["attention_mask"]
    features = [value for key, value in sorted(stored.items()) if key.startswith("image_embeds.")]
    image_mask = stored["input_ids"] == dst_chat().image_id
    kept = [f[: int(row.sum())] for f, row in zip(features, image_mask, strict=True)]
    return Batch(
        input_ids=stored["input_ids"],
        attention_mask=mask,
        hides_tokens=True,
        image_mask=image_mask,
        image_features=torch.cat(kept),
        labels=stored["speaking_gen_labels"].masked_fill(mask == 0, IGNORE_INDEX),
        dst_labels=stored["dst_gen_labels"].masked_fill(mask == 0, IGNORE_INDEX),
        pos_frame_mask=stored["speaking_labels"] == 1,
        neg_frame_mask=stored["speaking_labels"] == 0,
        dst_pos_frame_mask=stored["dst_update_labels"] == 1,
        dst_neg_frame_mask=stored["dst_update_labels"] == 0,
        speak_targets=(stored["speaking_labels"] == 1).float(),
        dst_targets=(stored["dst_update_labels"] == 1).float(),
    )


@pytest.mark.parametrize("name", COLLATED)
def test_batches_equal_the_reference(name: str) -> None:
    entry, chat = COLLATED[name], dst_chat()
    stored = stored_batch(name)
    records = [
        record(sample, sample["start_frame"] + num_frames)
        for sample, num_frames in zip(entry["samples"], entry["num_feature_frames"], strict=True)
    ]
    examples = ExampleSet(
        records, lambda c: torch.zeros(c.num_frames, 1, 32), chat, num_tokens_per_img=1,
        max_seq_len=entry["max_seq_len"], rho=1.0, turn_frames=None, seed=1, rules=DST_EXTENSION,
    )  # fmt: skip
    hidden_id = chat.end_of_turn_id if entry["pad"] == "eos" else None

    batch = collate([examples[0, i] for i in range(len(examples))], hidden_id=hidden_id)

    is_cut = bool((stored.attention_mask.sum(1) == entry["max_seq_len"]).any())
    for row, length in enumerate(examples.lengths):
        # the reference cuts anywhere, ours after a whole frame: what is left is the same
        if not is_cut:
            assert (stored.input_ids[row, length:] == pad_id(entry)).all()
        for column in (
            "input_ids", "attention_mask", "labels", "dst_labels", "pos_frame_mask",
            "neg_frame_mask", "dst_pos_frame_mask", "dst_neg_frame_mask",
        ):  # fmt: skip
            ours, theirs = getattr(batch, column)[row], getattr(stored, column)[row]
            assert torch.equal(ours[:length], theirs[:length]), column
    assert batch.hides_tokens == (entry["pad"] == "eos")


def pad_id(entry: dict[str, Any]) -> int:
    return int(FILE["tokenizer"][entry["pad"]]["pad_token_id"])


def test_the_end_of_turn_is_learnt_where_the_reference_hides_it() -> None:
    bug = BUGS["eos_masked_when_pad_is_eos"]
    entry = next(e for e in COLLATED.values() if e["pad"] == "eos")
    chat = dst_chat()
    records = [record(sample, 10**6) for sample in entry["samples"]]
    examples = ExampleSet(
        records, lambda c: torch.zeros(c.num_frames, 1, 32), chat, num_tokens_per_img=1,
        max_seq_len=10**6, rho=1.0, turn_frames=None, seed=1,
    )  # fmt: skip

    batch = collate([examples[0, i] for i in range(len(examples))])

    ends = (batch.input_ids == chat.end_of_turn_id) & (batch.attention_mask == 1)
    learnt = (batch.labels == chat.end_of_turn_id) | (batch.dst_labels == chat.end_of_turn_id)
    assert int(learnt.sum()) > 0
    assert bug["num_real_eos_masked"] > 0
    spoken = (batch.input_ids == chat.opening_ids("assistant")[0]) | (
        batch.input_ids == chat.opening_ids("dst")[0]
    )
    assert int(learnt.sum()) == int(spoken.sum())  # every span's end
    assert bool((learnt <= ends).all())


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
