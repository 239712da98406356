from __future__ import annotations

import dataclasses

import pytest
import torch

from proassist_lit.types import (
    Batch,
    FrameOutput,
    Reference,
    StepState,
    Transcript,
    Transition,
    Update,
    apply_updates,
    format_updates,
    parse_updates,
)

START, COMPLETE = Transition.START, Transition.COMPLETE
NEW, DOING, DONE = StepState.NOT_STARTED, StepState.IN_PROGRESS, StepState.COMPLETED


@pytest.mark.parametrize(
    ("now", "transition", "then", "num_invalid"),
    [
        (NEW, START, DOING, 0),
        (NEW, COMPLETE, DONE, 0),
        (DOING, COMPLETE, DONE, 0),
        (DOING, START, DOING, 1),
        (DONE, START, DONE, 1),
        (DONE, COMPLETE, DONE, 1),
    ],
)
def test_updates_move_steps_forward_only(now, transition, then, num_invalid) -> None:
    state = {"S1": now, "S2": NEW}

    assert apply_updates(state, [Update("S1", transition)]) == (
        {"S1": then, "S2": NEW},
        num_invalid,
    )
    assert state == {"S1": now, "S2": NEW}  # the old state stays


def test_unknown_steps_are_ignored_and_counted() -> None:
    updates = [Update("S9", START), Update("S1", START), Update("S1", COMPLETE)]

    assert apply_updates({"S1": NEW}, updates) == ({"S1": DONE}, 1)


def test_updates_are_written_and_read_back() -> None:
    updates = (Update("S1", COMPLETE), Update("S12", START))

    assert format_updates(updates) == "S1->complete;S12->start"
    assert parse_updates("S1->complete;S12->start") == (updates, 0)
    assert parse_updates(" S1 -> complete ; S12->start; ") == (updates, 0)
    assert (format_updates(()), parse_updates("")) == ("", ((), 0))


@pytest.mark.parametrize("text", ["S1", "S1->", "->start", "S1->done", "S1=start", "S1->start->x"])
def test_unreadable_pieces_are_counted(text: str) -> None:
    assert parse_updates(text) == ((), 1)
    assert parse_updates(f"S2->start;{text}") == ((Update("S2", START),), 1)


def test_transcript_needs_a_reference_per_frame() -> None:
    frame = FrameOutput(
        frame_idx=0, time_s=0.0, speak_prob=0.5, dst_prob=None, speak=False, dst=False
    )
    with pytest.raises(ValueError, match=r"'s': 2 frames but 1 references"):
        Transcript(stream_id="s", dataset="toy", fps=2.0, steps=(), frames=(frame, frame),
                   references=(Reference(),))  # fmt: skip


def test_pinning_a_batch_pins_every_field(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: (pinned.append(self), self)[1])
    fields = dataclasses.fields(Batch)
    tensors = [f.name for f in fields if f.name != "hides_tokens"]
    batch = Batch(**{name: torch.zeros(1) for name in tensors}, hides_tokens=True)

    assert batch.pin_memory().hides_tokens
    assert len(pinned) == len(tensors)
