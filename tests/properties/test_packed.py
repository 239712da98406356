"""A packed row is its members: no conversation of it sees or teaches another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proassist_lit.data.collate import collate, pack
from proassist_lit.model.config import Decision
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind, compute_losses
from proassist_lit.sequence.packing import fill_batches
from proassist_lit.sequence.turns import single_turns
from proassist_lit.types import IGNORE_INDEX, Example
from tests.properties.models import batches, example, gradients, model, terms
from tests.properties.strategies import Case, cases, examples

COLUMNS = [f.name for f in fields(Example) if f.name != "image_features"]
OBJECTIVES = {
    "per_token": (ObjectiveKind.PER_TOKEN, Decision.HEAD),
    "two_heads": (ObjectiveKind.PER_TOKEN, Decision.INFORMATIVE_RELEVANCE),
    "per_turn": (ObjectiveKind.PER_TURN, Decision.HEAD),
    "silent_token": (ObjectiveKind.TOKEN_PROB, Decision.SILENT_TOKEN),
    "opening_token": (ObjectiveKind.TOKEN_PROB, Decision.OPENING_TOKEN),
}


def rows(members: Sequence[Case], kind: ObjectiveKind) -> list[Example]:
    turn_frames = 2 if kind is ObjectiveKind.PER_TURN else None
    return [example(case, rho=0.7, turn_frames=turn_frames) for case in members]


@examples(25)
@given(members=batches(cases(), 4))
def test_a_packed_row_holds_its_members_one_behind_the_other(members: Sequence[Case]) -> None:
    made = rows(members, ObjectiveKind.PER_TOKEN)
    batch = pack(made)
    assert batch.segment_ids is not None
    assert batch.lengths == tuple(len(member.input_ids) for member in made)
    assert int(batch.attention_mask.sum()) == sum(batch.lengths) == batch.input_ids.shape[1]
    for number, member in enumerate(made):
        own = batch.segment_ids[0] == number
        for name in COLUMNS:
            want = getattr(member, name)
            if "labels" in name:  # nothing stands before its first token that could foretell it
                want = want.clone()
                want[0] = IGNORE_INDEX
            assert torch.equal(getattr(batch, name)[0, own], want)
    assert torch.equal(batch.image_features, torch.cat([m.image_features for m in made]))


@pytest.mark.parametrize("name", OBJECTIVES)
@examples(12)
@given(members=batches(cases(max_turns=8, tokens=(1, 5), formats=("dst_ext",)), 3))
def test_losses_and_gradients_of_a_packed_row_are_those_of_its_members(
    name: str, members: Sequence[Case]
) -> None:
    kind, decision = OBJECTIVES[name]
    made, config = rows(members, kind), ObjectiveConfig(kind=kind, logit_chunk=7)
    assistant = model(decision, "dst_ext")
    packed = compute_losses(assistant, pack(made), config)
    padded = compute_losses(assistant, collate(made), config)
    alone = [compute_losses(assistant, collate([member]), config) for member in made]

    total = torch.stack([terms(losses) for losses in alone]).sum(0)
    torch.testing.assert_close(terms(packed), total, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(packed.total, padded.total, rtol=1e-9, atol=1e-9)
    ours, theirs = gradients(assistant, packed.total), gradients(assistant, padded.total)
    for parameter, gradient in theirs.items():
        room = 1e-9 * max(float(gradient.abs().max()), 1.0)
        torch.testing.assert_close(ours[parameter], gradient, rtol=1e-9, atol=room)


@examples(10)
@given(case=cases(max_turns=8, tokens=(1, 5)))
def test_single_turns_of_a_packed_row_learn_what_shared_ones_do(case: Case) -> None:
    (whole,) = rows([case], ObjectiveKind.PER_TURN)
    config, assistant = ObjectiveConfig(), model()

    with torch.no_grad():
        shared = compute_losses(assistant, pack([whole]), config)
        single = compute_losses(assistant, pack(single_turns(whole)), config)

    torch.testing.assert_close(terms(single), terms(shared), rtol=1e-9, atol=1e-9)


@examples(10)
@given(members=batches(cases(max_turns=6, tokens=(1,)), 3), data=st.data())
def test_nothing_of_one_conversation_reaches_another(
    members: Sequence[Case], data: st.DataObject
) -> None:
    made = rows(members, ObjectiveKind.PER_TOKEN)
    changed = data.draw(st.integers(0, len(made) - 1), label="changed")
    others = list(made)
    others[changed] = replace(
        made[changed],
        input_ids=made[changed].input_ids.flip(0),
        image_features=-made[changed].image_features,
    )
    assistant = model()
    with torch.no_grad():
        before, after = assistant(pack(made)).hidden[0], assistant(pack(others)).hidden[0]

    own = pack(made).segment_ids[0] == changed
    assert torch.equal(before[~own], after[~own])
    assert not torch.equal(before[own], after[own])


@examples(50)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    max_tokens=st.integers(50, 200),
    packed=st.booleans(),
)
def test_batches_keep_to_the_budget_and_hold_everything_once(
    lengths: list[int], max_tokens: int, packed: bool
) -> None:
    found = fill_batches(lengths, range(len(lengths)), max_tokens=max_tokens, packed=packed)

    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    for batch in found:
        rows = [lengths[i] for i in batch]
        assert (sum(rows) if packed else max(rows) * len(rows)) <= max_tokens
    if packed:
        assert sum(2 * sum(lengths[i] for i in batch) <= max_tokens for batch in found) <= 1
