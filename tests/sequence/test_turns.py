from __future__ import annotations

from typing import Any

import pytest
import torch

from proassist_lit.data.collate import collate
from proassist_lit.objectives import ObjectiveConfig, compute_losses
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.sequence.turns import single_turns
from proassist_lit.types import IGNORE_INDEX, Example
from tests.fakes import dialogue, random_features, tiny_model, word_chat

MASKS = ("pos_frame_mask", "neg_frame_mask", "dst_pos_frame_mask", "dst_neg_frame_mask")


def example(**changes: Any) -> Example:
    options = {"rho": 1.0, "turn_frames": 2, "seed": 0} | changes
    examples = ExampleSet(
        [dialogue()], lambda c: random_features(c.num_frames), word_chat(),
        num_tokens_per_img=1, max_seq_len=4096, **options,
    )  # fmt: skip
    return examples[0, 0]


def test_every_row_has_one_decision_and_its_own_labels() -> None:
    whole = example()

    rows = single_turns(whole)

    assert len(rows) == int(torch.stack([getattr(whole, m) for m in MASKS]).any(0).sum()) == 5
    for name in MASKS:
        assert sum(int(getattr(row, name).sum()) for row in rows) == int(getattr(whole, name).sum())
    for name in ("labels", "dst_labels"):
        kept = torch.full_like(whole.labels, IGNORE_INDEX)
        for row in rows:
            labels = getattr(row, name)
            here = labels != IGNORE_INDEX
            assert (kept[: len(labels)][here] == IGNORE_INDEX).all()  # no label twice
            kept[: len(labels)][here] = labels[here]
        assert torch.equal(kept, getattr(whole, name))
    for row in rows:
        decisions = torch.stack([getattr(row, m) for m in MASKS]).any(0).nonzero().flatten()
        assert len(decisions) == 1
        own = ((row.labels != IGNORE_INDEX) | (row.dst_labels != IGNORE_INDEX)).nonzero()
        assert len(row.input_ids) == max(int(decisions), *own.flatten().tolist(), 0) + 1
        assert len(row.image_features) == int(row.image_mask.sum())


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=str
)
def test_single_turns_learn_what_shared_ones_do(dtype: torch.dtype, tolerance: float) -> None:
    whole, config = example(), ObjectiveConfig(turn_frames=2)
    gradients = []
    totals = []
    for rows in ([whole], single_turns(whole)):
        model = tiny_model(dst_output_head=True, dtype=dtype).train()
        total = compute_losses(model, collate(rows), config).total
        total.backward()
        totals.append(total.detach())
        gradients.append({name: p.grad for name, p in model.named_parameters()})

    torch.testing.assert_close(totals[1], totals[0], rtol=tolerance, atol=tolerance)
    # Hugging Face's norms compute in float32, whatever the model's type: so do gradients.
    tolerance = max(tolerance, 1e-6)
    for name, gradient in gradients[0].items():
        room = tolerance * max(float(gradient.abs().max()), 1.0)
        torch.testing.assert_close(gradients[1][name], gradient, rtol=tolerance, atol=room)


def test_without_a_decision_there_is_nothing_to_split() -> None:
    whole = example(rho=0.0)
    none = {name: torch.zeros_like(whole.pos_frame_mask) for name in MASKS}
    whole = Example(**{**vars(whole), **none})

    assert single_turns(whole) == [whole]
