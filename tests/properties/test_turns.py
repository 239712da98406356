"""Per-turn training: every turn alone is the same as all turns of a conversation at once."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from proassist_lit.data.collate import collate
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind, Turns, compute_losses
from proassist_lit.sequence.turns import single_turns
from proassist_lit.types import IGNORE_INDEX, Example
from tests.properties.models import DTYPES, example, gradients, model, terms
from tests.properties.strategies import Case, cases, examples

SMALL = cases(max_turns=8, tokens=(1, 5))
MASKS = ("pos_frame_mask", "neg_frame_mask", "dst_pos_frame_mask", "dst_neg_frame_mask")


def decisions(made: Example) -> list[int]:
    return [int(i) for i in torch.stack([getattr(made, name) for name in MASKS]).any(0).nonzero()]


@examples(40)
@given(case=cases(), rho=st.sampled_from([0.0, 0.5, 1.0]), turn_frames=st.integers(1, 3))
def test_rows_share_out_decisions_and_labels(case: Case, rho: float, turn_frames: int) -> None:
    made = example(case, rho=rho, turn_frames=turn_frames)
    rows = single_turns(made)
    assert len(rows) == max(len(decisions(made)), 1)
    total = len(made.input_ids)
    for name in ("labels", "dst_labels", *MASKS):
        whole = getattr(made, name)
        nothing = IGNORE_INDEX if "labels" in name else False
        times = torch.zeros(total, dtype=torch.int64)
        for row in rows:
            column = getattr(row, name)
            held = column != nothing
            times[: len(column)] += held
            assert torch.equal(column[held], whole[: len(column)][held])
        assert torch.equal(times, (whole != nothing).long())  # each once
    for row in rows:
        length = len(row.input_ids)
        assert torch.equal(row.input_ids, made.input_ids[:length])
        assert torch.equal(row.image_mask, made.image_mask[:length])
        assert torch.equal(row.image_features, made.image_features[: int(row.image_mask.sum())])
        assert len(decisions(row)) == (len(decisions(made)) > 0)


@examples(18)
@given(
    members=st.lists(SMALL, min_size=1, max_size=2),
    turn_frames=st.integers(1, 3),
    gamma=st.sampled_from([0.0, 2.0]),
    dtype=st.sampled_from(list(DTYPES)),
)
def test_single_turns_learn_what_shared_turns_learn(
    members: list[Case], turn_frames: int, gamma: float, dtype: torch.dtype
) -> None:
    made = [
        example(case, rho=0.7, turn_frames=turn_frames, dtype=dtype, smoothing_s=0.3)
        for case in members
    ]
    config = ObjectiveConfig(
        kind=ObjectiveKind.PER_TURN,
        turns=Turns.SINGLE,
        turn_frames=turn_frames,
        focal_gamma=gamma,
        pos_weight=3.0,
    )
    assistant, tolerance = model(dtype=dtype), DTYPES[dtype]
    shared = compute_losses(assistant, collate(made), config)
    single = compute_losses(
        assistant, collate([row for member in made for row in single_turns(member)]), config
    )
    torch.testing.assert_close(single.total, shared.total, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(terms(single), terms(shared), rtol=tolerance, atol=tolerance)
    wanted = gradients(assistant, shared.total)
    found = gradients(assistant, single.total)
    largest = max(float(gradient.norm()) for gradient in wanted.values())
    for name, gradient in wanted.items():
        error = float((found[name] - gradient).norm())
        assert error <= tolerance * max(float(gradient.norm()), 1e-2 * largest), name
