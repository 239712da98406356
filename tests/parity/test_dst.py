"""The DST extension: sequences and batches against its own code's numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from proassist_lit.data.collate import collate
from proassist_lit.data.conversation import UserTurn
from proassist_lit.sequence.builder import TokenSequence, build_sequence, prefix_ids
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.sequence.rules import DST_EXTENSION, OURS, SequenceRules
from proassist_lit.sequence.sampling import sample_decisions
from proassist_lit.sequence.script import read_script
from proassist_lit.types import IGNORE_INDEX
from tests.parity.dst_numbers import COLLATED, FILE, dst_chat, record, stored_batch
from tests.parity.numbers import needs, numbers

pytestmark = needs("dst.json", "dst.safetensors", "known_reference_bugs.json")

SEQUENCES = {entry["name"]: entry for entry in FILE.get("sequences", [])}
BUGS = numbers("known_reference_bugs.json").get("dst", [])


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
    with_user = [
        entry
        for entry in SEQUENCES.values()
        if entry["used_frames"]
        and any(
            isinstance(turn, UserTurn)
            for turn in record(entry["sample"], entry["max_frames"]).turns
        )
    ]
    if not with_user:
        pytest.skip("in no sequence the user says anything")
    for entry in with_user:
        chat, said = dst_chat(), record(entry["sample"], entry["max_frames"])

        ids = build(entry, OURS).input_ids.tolist()

        text = chat.tokenizer.decode(ids)
        for turn in said.turns:
            assert not isinstance(turn, UserTurn) or f"User: {turn.content.strip()}" in text


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
    hidden = [bug["num_real_eos_masked"] for bug in BUGS if "num_real_eos_masked" in bug]
    entry = next((e for e in COLLATED.values() if e["pad"] == "eos"), None)
    if entry is None or not hidden:
        pytest.skip("in no batch the reference hides the end of turn")
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
    assert all(number > 0 for number in hidden)
    spoken = (batch.input_ids == chat.opening_ids("assistant")[0]) | (
        batch.input_ids == chat.opening_ids("dst")[0]
    )
    assert int(learnt.sum()) == int(spoken.sum())  # every span's end
    assert bool((learnt <= ends).all())
