"""A batch is its members: nothing of one reaches another, and nothing depends on their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proassist_lit.data.collate import collate
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind, compute_losses
from proassist_lit.types import IGNORE_INDEX, Batch, Example
from tests.properties.models import batches, example, model, terms
from tests.properties.strategies import Case, cases, examples

SMALL = cases(max_turns=8, tokens=(1, 5))
KINDS = st.sampled_from([ObjectiveKind.PER_TOKEN, ObjectiveKind.PER_TURN])
COLUMNS = [f.name for f in fields(Example) if f.name != "image_features"]


def rows(members: Sequence[Case], kind: ObjectiveKind) -> list[Example]:
    turn_frames = 2 if kind is ObjectiveKind.PER_TURN else None
    return [example(case, rho=0.7, turn_frames=turn_frames, smoothing_s=0.5) for case in members]


@examples(25)
@given(members=batches(cases(), 4))
def test_a_batch_holds_its_members_and_padding(members: Sequence[Case]) -> None:
    made = rows(members, ObjectiveKind.PER_TOKEN)
    batch = collate(made)
    for name in COLUMNS:
        column = getattr(batch, name)
        assert column.dtype == getattr(made[0], name).dtype
        for row, member in zip(column, made, strict=True):
            length = len(member.input_ids)
            assert torch.equal(row[:length], getattr(member, name))
            padding = IGNORE_INDEX if "labels" in name else 0
            assert (row[length:] == padding).all()
    lengths = [len(member.input_ids) for member in made]
    assert batch.attention_mask.sum(1).tolist() == lengths
    assert torch.equal(batch.image_features, torch.cat([m.image_features for m in made]))
    assert len(batch.image_features) == int(batch.image_mask.sum())


@examples(25)
@given(members=batches(SMALL, 3), kind=KINDS, data=st.data())
def test_hidden_states_and_losses_of_a_batch_are_those_of_its_members(
    members: Sequence[Case], kind: ObjectiveKind, data: st.DataObject
) -> None:
    made, config = rows(members, kind), ObjectiveConfig(kind=kind, focal_gamma=0.5)
    assistant = model()
    with torch.no_grad():
        batch = collate(made)
        together = compute_losses(assistant, batch, config)
        alone = [compute_losses(assistant, collate([member]), config) for member in made]
        hidden = assistant(batch).hidden
        for row, member in zip(hidden, made, strict=True):
            own = assistant(collate([member])).hidden[0]
            torch.testing.assert_close(row[: len(own)], own, rtol=1e-9, atol=1e-9)
        total = torch.stack([terms(losses) for losses in alone]).sum(0)
        torch.testing.assert_close(terms(together), total, rtol=1e-9, atol=1e-9)

        order = data.draw(st.permutations(range(len(made))), label="order")
        moved = collate([made[i] for i in order])
        torch.testing.assert_close(
            compute_losses(assistant, moved, config).total, together.total, rtol=1e-9, atol=1e-9
        )
        _assert_permuted(batch, moved, order)


def _assert_permuted(batch: Batch, moved: Batch, order: list[int]) -> None:
    for name in [*COLUMNS, "attention_mask"]:
        before, after = getattr(batch, name), getattr(moved, name)
        if before is None:  # relevance, where nobody learns it
            assert after is None
        else:
            assert torch.equal(before[order], after)


@examples(15)
@given(case=SMALL)
def test_every_label_is_predicted_from_the_token_before_it(case: Case) -> None:
    """The loss, worked out one token at a time with the whole vocabulary."""
    made, assistant = example(case), model()
    with torch.no_grad():
        batch = collate([made])
        losses = compute_losses(assistant, batch, ObjectiveConfig())
        hidden = assistant(batch).hidden[0]
        for column, found, dst in (
            (made.labels, losses.response, False),
            (made.dst_labels, losses.dst_response, True),
        ):
            log_probs = assistant.lm_logits(hidden, dst=dst).log_softmax(-1)
            learnt = [i for i in range(1, len(column)) if column[i] != IGNORE_INDEX]
            by_hand = -sum(float(log_probs[i - 1, made.input_ids[i]]) for i in learnt)
            assert found is not None
            assert int(found.count) == len(learnt)
            assert float(found.sum) == pytest.approx(by_hand, rel=1e-9)
