"""Batches that lack a class, or everything, under every objective: finite losses and gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proassist_lit.data.collate import collate
from proassist_lit.model.config import Decision
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind, compute_losses
from proassist_lit.sequence.turns import single_turns
from proassist_lit.types import IGNORE_INDEX, Example
from tests.fakes import SEPARATOR, dialogue
from tests.properties.models import example, gradients, model, terms
from tests.properties.strategies import CHATS, Case, cases, examples

SMALL = cases(max_turns=6, tokens=(1,), formats=("dst_ext",))
OBJECTIVES = {
    "per_token": (ObjectiveKind.PER_TOKEN, Decision.HEAD, False),
    "per_turn shared": (ObjectiveKind.PER_TURN, Decision.HEAD, False),
    "per_turn single": (ObjectiveKind.PER_TURN, Decision.HEAD, True),
    "silent_token": (ObjectiveKind.TOKEN_PROB, Decision.SILENT_TOKEN, False),
    "opening_token": (ObjectiveKind.TOKEN_PROB, Decision.OPENING_TOKEN, False),
}
LACKS = ("nothing", "pos", "neg", "decisions", "labels", "everything")


def without(made: Example, lack: str) -> Example:
    """The example with all decisions of one class, without decisions, or without labels."""
    changes: dict[str, torch.Tensor] = {}
    for head in ("", "dst_"):
        pos, neg = (getattr(made, f"{head}{kind}_frame_mask") for kind in ("pos", "neg"))
        none = torch.zeros_like(pos)
        both = {"pos": (none, pos | neg), "neg": (pos | neg, none)}
        if lack in ("decisions", "everything"):
            both[lack] = (none, none)
        if lack in both:
            new_pos, new_neg = both[lack]
            changes |= {f"{head}pos_frame_mask": new_pos, f"{head}neg_frame_mask": new_neg}
            changes[f"{'dst' if head else 'speak'}_targets"] = new_pos.float()
        if lack in ("labels", "everything"):
            changes[f"{head}labels"] = torch.full_like(made.labels, IGNORE_INDEX)
    return replace(made, **changes)


def check_losses(
    objective: str, dtype: torch.dtype, gamma: float, lack: str, members: list[Case]
) -> list[float]:
    """Counts of the four losses, after seeing that they and their gradients are sound."""
    kind, decision, is_single = OBJECTIVES[objective]
    config = ObjectiveConfig(kind=kind, focal_gamma=gamma, turn_frames=1)
    assistant = model(decision, "dst_ext", SEPARATOR, dtype=dtype)
    made = [
        without(example(case, turn_frames=config.sampled_turn_frames, dtype=dtype), lack)
        for case in members
    ]
    if is_single:
        made = [row for member in made for row in single_turns(member)]
    losses = compute_losses(assistant, collate(made), config)
    assert losses.total.isfinite()
    assert losses.total >= 0
    found = gradients(assistant, losses.total)
    assert all(gradient.isfinite().all() for gradient in found.values())
    counts = terms(losses)[1::2].tolist()
    if lack in ("decisions", "everything"):
        assert [counts[i] for i in (1, 2, 4, 5)] == [0] * 4
    if lack in ("pos", "neg"):
        assert counts[1 if lack == "pos" else 2] == 0
    if lack == "everything":
        assert losses.total == 0
        assert all((gradient == 0).all() for gradient in found.values())
    return counts


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("objective", OBJECTIVES)
@examples(20)
@given(
    members=st.lists(SMALL, min_size=1, max_size=2),
    lack=st.sampled_from(LACKS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_losses_and_gradients_stay_finite(
    objective: str, dtype: torch.dtype, gamma: float, lack: str, members: list[Case]
) -> None:
    check_losses(objective, dtype, gamma, lack, members)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_they_stay_finite_whatever_a_batch_with_all_of_it_loses(
    objective: str, dtype: torch.dtype, gamma: float
) -> None:
    whole = Case(conversation=dialogue(), chat=CHATS["dst_ext", SEPARATOR], num_tokens_per_img=1)
    counts = {lack: check_losses(objective, dtype, gamma, lack, [whole]) for lack in LACKS}

    assert all(counts["nothing"])  # words, updates, and both answers of both decisions
    # That a frame is not silent is learnt among the words.
    no_words = (3,) if objective == "silent_token" else (0, 3)
    for lack, missing in {"pos": (1, 4), "neg": (2, 5), "labels": no_words}.items():
        assert [i for i, count in enumerate(counts[lack]) if not count] == list(missing), lack
