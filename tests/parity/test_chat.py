"""Text, labels and frame masks against numbers made by the reference's own code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from proassist_lit.data.collate import collate
from proassist_lit.sequence.builder import TokenSequence, build_sequence
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.sequence.rules import OURS, PROASSIST, SequenceRules
from proassist_lit.sequence.sampling import Decisions, sample_decisions
from proassist_lit.sequence.script import read_script
from proassist_lit.types import IGNORE_INDEX, Batch
from tests.parity.numbers import conversation, llama_chat, needs, numbers

pytestmark = needs("chat_and_masks.json", "known_reference_bugs.json")

FILE = numbers("chat_and_masks.json")
BUGS = numbers("known_reference_bugs.json").get("chat", {})
CASES = {case["name"]: case for case in FILE.get("cases", [])}


def build(case: dict[str, Any], rules: SequenceRules = PROASSIST) -> TokenSequence:
    chat = llama_chat(case["img_sep_token_arg"].replace("none", ""))
    record = conversation(case["conversation"], summary_only=case["neg_frame_sampling_rate"] < 0)
    return build_sequence(
        read_script(record, rules), chat,
        num_tokens_per_img=case["num_tokens_per_img"], max_seq_len=10**6,
    )  # fmt: skip


def decide(sequence: TokenSequence, rate: float, rules: SequenceRules = PROASSIST) -> Decisions:
    return sample_decisions(
        sequence, rho=max(rate, 0.0), turn_frames=None, seed=1, epoch=0, record_id="video",
        rules=rules,
    )  # fmt: skip


def indices(mask: Tensor) -> list[int]:
    return mask.nonzero().flatten().tolist()


def shifted(labels: Tensor) -> list[int]:
    """Ours are aligned with the input; the reference's are targets of the next token."""
    return [*labels[1:].tolist(), IGNORE_INDEX]


def without_silence(case: dict[str, Any]) -> list[int]:
    """The reference's labels but for the silent token at silent frames, which is never ours."""
    silent = set(case["neg_frame_idx"])
    assert all(case["labels"][i] == case["w2t_target_id"] for i in silent)
    return [IGNORE_INDEX if i in silent else label for i, label in enumerate(case["labels"])]


@pytest.mark.parametrize("name", CASES)
def test_tokens_and_labels_equal_the_reference(name: str) -> None:
    case = CASES[name]

    sequence = build(case)

    assert sequence.input_ids.tolist() == case["input_ids"]
    assert shifted(sequence.labels) == without_silence(case)
    assert (sequence.dst_labels == IGNORE_INDEX).all()
    assert int(sequence.image_mask.sum()) == case["num_frames"] * case["num_tokens_per_img"]


@pytest.mark.parametrize("name", CASES)
def test_frame_masks_equal_the_reference(name: str) -> None:
    case = CASES[name]
    sequence = build(case)

    decisions = decide(sequence, case["neg_frame_sampling_rate"])

    assert indices(decisions.pos_frame_mask) == case["pos_frame_idx"]
    assert int(decisions.neg_frame_mask.sum()) == case["num_neg"]
    everything = decide(sequence, 1.0)
    assert set(case["neg_frame_idx"]) <= set(indices(everything.neg_frame_mask))
    if case["neg_frame_sampling_rate"] in (-1, 1.0):
        assert indices(decisions.neg_frame_mask) == case["neg_frame_idx"]


def test_silent_token_of_a_separator_equals_the_reference() -> None:
    for case in CASES.values():
        chat = llama_chat(case["img_sep_token_arg"].replace("none", ""))

        assert chat.silent_id == case["w2t_target_id"]
        assert chat.image_id == case["img_token_id"]
        assert chat.end_of_turn_id == case["eos_token_id"]


def test_count_of_silent_frames_equals_the_reference() -> None:
    for row in FILE["nfs_table"]:
        if row["rate"] < 0:
            continue
        # a frames turn that text follows: its last frame is no candidate
        turns = [{"role": "frames", "start": 0, "end": row["num_frames"]},
                 {"role": "user", "content": "wait"}]  # fmt: skip
        sequence = build_sequence(
            read_script(conversation(turns), PROASSIST), llama_chat(),
            num_tokens_per_img=row["num_tokens_per_img"], max_seq_len=10**6,
        )  # fmt: skip

        decisions = decide(sequence, row["rate"])

        assert int(decisions.neg_frame_mask.sum()) == row["count"], row


def test_ours_keeps_the_share_of_the_whole_record() -> None:
    for row in FILE["nfs_table"]:
        if row["rate"] < 0:
            continue
        turns = [{"role": "frames", "start": 0, "end": row["num_frames"]},
                 {"role": "user", "content": "wait"}]  # fmt: skip
        sequence = build_sequence(
            read_script(conversation(turns)), llama_chat(), num_tokens_per_img=1, max_seq_len=10**6
        )

        number = int(decide(sequence, row["rate"], OURS).neg_frame_mask.sum())

        exact = row["rate"] * (row["num_frames"] - 1)
        assert number <= exact + 1e-6
        assert number > exact - 1
        assert row["rate"] > 0 or number == 0


def batch_of(entry: dict[str, Any]) -> Batch:
    chat = llama_chat(entry["img_sep_token_arg"].replace("none", ""))
    k = entry["num_tokens_per_img"]
    examples = ExampleSet(
        [conversation(turns) for turns in entry["conversations"]],
        lambda record: torch.zeros(record.num_frames, k, 4),
        chat, num_tokens_per_img=k, max_seq_len=10**6, rho=entry["neg_frame_sampling_rate"],
        turn_frames=None, seed=1, rules=PROASSIST,
    )  # fmt: skip
    return collate([examples[0, i] for i in range(len(examples))])


@pytest.mark.parametrize("index", range(len(FILE.get("batches", []))))
def test_batch_equals_the_reference_padded_on_the_side_it_gets_right(index: int) -> None:
    entry = FILE["batches"][index]

    batch = batch_of(entry)

    for row, ids in enumerate(entry["input_ids"]):
        length = int(batch.attention_mask[row].sum())
        start = len(ids) - length  # theirs is padded on the left
        assert batch.input_ids[row, :length].tolist() == ids[start:]
        theirs = torch.tensor(entry["labels"][row])
        theirs[entry["neg_frame_idx"][row]] = IGNORE_INDEX
        assert shifted(batch.labels[row, :length]) == theirs[start:].tolist()
        pos = [i - start for i in entry["pos_frame_idx"][row]]
        assert indices(batch.pos_frame_mask[row]) == pos
        neg = [i - start for i in entry["neg_frame_idx"][row]]
        if entry["neg_frame_sampling_rate"] == 1.0:
            assert indices(batch.neg_frame_mask[row]) == neg
        assert int(batch.neg_frame_mask[row].sum()) == len(neg)
        for column in (batch.labels, batch.dst_labels):
            assert (column[row, length:] == IGNORE_INDEX).all()


RIGHT_PADDED = BUGS.get("right_padding_collator", {}).get("batches", [])


@pytest.mark.parametrize("index", range(len(RIGHT_PADDED)))
def test_right_padding_keeps_the_labels_that_the_reference_loses(index: int) -> None:
    entry = RIGHT_PADDED[index]
    assert sum(entry["num_label_tokens_original"]) < sum(entry["num_label_tokens_expected"])

    batch = batch_of(entry)

    for row, length in enumerate(entry["lengths"]):
        assert int(batch.attention_mask[row].sum()) == length
        want = torch.tensor(entry["expected_labels"][row])
        neg = entry["expected_neg_frame_idx"][row]
        want[neg] = IGNORE_INDEX
        assert shifted(batch.labels[row]) == want.tolist()
        assert indices(batch.pos_frame_mask[row]) == entry["expected_pos_frame_idx"][row]
        assert int(batch.neg_frame_mask[row].sum()) == len(neg)
        if entry["neg_frame_sampling_rate"] == 1.0:
            assert indices(batch.neg_frame_mask[row]) == neg


def test_turns_that_crash_the_reference_make_right_sequences() -> None:
    """A frames turn of no frames adds nothing; our reader refuses it before it comes here."""
    for entry in BUGS["collator_errors"]:
        turns = [t for t in entry["conversation"] if t["role"] != "frames" or t["end"] > t["start"]]

        assert build_ids(entry["conversation"]) == build_ids(turns)


def build_ids(turns: list[dict[str, Any]]) -> list[int]:
    script = read_script(conversation(turns))
    sequence = build_sequence(script, llama_chat(), num_tokens_per_img=1, max_seq_len=10**6)
    return sequence.input_ids.tolist()


DIFFERENCES = [
    ("join_utterances", lambda ours, theirs: len(ours.input_ids) < len(theirs.input_ids)),
    ("join_frames", lambda ours, theirs: (ours.speak_labels == 0).sum()
     > (theirs.speak_labels == 0).sum()),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "differs"), DIFFERENCES)
def test_a_difference_can_be_switched_alone(rule: str, differs: Any) -> None:
    """Some case shows it, and where it is on, ours is the reference's."""
    shown = []
    for name, case in CASES.items():
        ours, theirs = build(case, OURS), build(case, PROASSIST)
        switched = build(case, replace(OURS, **{rule: getattr(PROASSIST, rule)}))
        alone = replace(PROASSIST, **{rule: getattr(OURS, rule)})
        if differs(build(case, alone), theirs):
            shown.append(name)
            assert differs(ours, switched)
    assert shown
