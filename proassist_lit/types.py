"""The types that several layers share.

Shape letters, here and in every docstring: B batch, T tokens, F frames, K tokens per frame,
D hidden size, E vision feature size, V vocabulary, L layers, N labelled positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Self

import torch
from torch import Tensor

SPLITS = ("train", "val", "test")
"""The splits of a data set. A run needs the first two."""

IGNORE_INDEX = -100
"""Label of a token without a loss (Hugging Face's and PyTorch's convention)."""


class StepState(StrEnum):
    """State of one step of the task."""

    NOT_STARTED = "not_started"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"


class Transition(StrEnum):
    """What a state update does to a step."""

    START = "start"
    COMPLETE = "complete"


@dataclass(frozen=True)
class Update:
    """One state update, written ``S3->complete`` in text.

    Attributes:
        id: step identifier, ``S1`` .. ``Sn``.
        transition: what happened to the step.
    """

    id: str
    transition: Transition

    def __str__(self) -> str:
        return f"{self.id}->{self.transition.value}"


DialogueState = Mapping[str, StepState]
"""State of every step of the task, by step id, in the order of the steps."""


def apply_updates(
    state: DialogueState, updates: Iterable[Update]
) -> tuple[dict[str, StepState], int]:
    """Return ``state`` after ``updates``, and how many of them were invalid.

    ``start`` moves ``not_started`` to ``in_progress``; ``complete`` moves either of the two to
    ``completed``. An unknown step, or a move backwards, changes nothing and is counted.
    """
    new, num_invalid = dict(state), 0
    for update in updates:
        now = new.get(update.id)
        if update.transition is Transition.START and now is StepState.NOT_STARTED:
            new[update.id] = StepState.IN_PROGRESS
        elif update.transition is Transition.COMPLETE and now in (
            StepState.NOT_STARTED,
            StepState.IN_PROGRESS,
        ):
            new[update.id] = StepState.COMPLETED
        else:
            num_invalid += 1
    return new, num_invalid


def format_updates(updates: Iterable[Update]) -> str:
    """Write updates as the model does: ``S1->complete;S2->start``."""
    return ";".join(str(update) for update in updates)


def parse_updates(text: str) -> tuple[tuple[Update, ...], int]:
    """Read a dst span; return its updates and the number of pieces that were not readable."""
    updates, num_invalid = [], 0
    for piece in filter(None, (part.strip() for part in text.split(";"))):
        step_id, arrow, transition = (part.strip() for part in piece.partition("->"))
        if step_id and arrow and transition in {t.value for t in Transition}:
            updates.append(Update(step_id, Transition(transition)))
        else:
            num_invalid += 1
    return tuple(updates), num_invalid


@dataclass(frozen=True, kw_only=True)
class FrameOutput:
    """What an assistant did at one frame of a stream.

    Attributes:
        frame_idx: index of the frame in the video.
        time_s: ``frame_idx / fps``, seconds from the start of the video.
        speak_prob: P(speak) in [0, 1], read at the frame's last image token.
        dst_prob: P(update) in [0, 1]; None without a dst head.
        speak: the assistant decided to speak.
        dst: the assistant decided to update the state.
        text: words spoken at this frame, empty when silent.
        updates: state updates written at this frame, also those that changed nothing.
        dst_invalid: pieces of the dst span that were unreadable or changed nothing.
        state: state of every step after this frame; frames between two updates share it.
        user_text: what the user said since the frame before; not what the system told.
        context_len: tokens of the context after this frame, those that wait to be fed included,
            before the context strategy ran.
        event: name of the context strategy if it ran after this frame.
    """

    frame_idx: int
    time_s: float
    speak_prob: float
    dst_prob: float | None
    speak: bool
    dst: bool
    text: str = ""
    updates: tuple[Update, ...] = ()
    dst_invalid: int = 0
    state: DialogueState = field(default_factory=dict)
    user_text: str = ""
    context_len: int = 0
    event: str | None = None


KINDS = ("instruction", "feedback", "correction", "answer", "info_sharing")
"""Kinds of utterance that are scored apart; ProAssist calls an answer ``info_sharing``."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the reference dialogue does at one frame. No decision ever sees it.

    Attributes:
        text: reference utterance of the frame, empty when silent.
        updates: reference state updates of the frame.
        state: reference state of every step after this frame.
        keywords: words that a right utterance must hold (right verb, right object).
        kinds: what the utterance does, as the source names it: ``correction``, say.
        is_summary: a recorded request for a summary is answered at this frame. Nobody hears that:
            neither the reference's answer nor what the assistant writes here is an utterance.
        speak_label: 1 speak, 0 stay silent, None neither (no decision is evaluated here).
        dst_label: the same for the state update.
        supervised: whether the source knows what to do at the frame. If not, what is done there
            without a counterpart is no fault, and the state after it is not compared.
    """

    text: str = ""
    updates: tuple[Update, ...] = ()
    state: DialogueState = field(default_factory=dict)
    keywords: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    is_summary: bool = False
    speak_label: int | None = None
    dst_label: int | None = None
    supervised: bool = True


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """One stream as it was answered, beside its reference: what metrics and reports read.

    Attributes:
        stream_id: unique name of the stream.
        dataset: name of the data set; chooses the match window.
        fps: frames per second.
        steps: (id, name) of every step of the task.
        frames: what the assistant did, one entry a frame, in order.
        references: what the reference does, aligned with ``frames``.
    """

    stream_id: str
    dataset: str
    fps: float
    steps: tuple[tuple[str, str], ...]
    frames: tuple[FrameOutput, ...]
    references: tuple[Reference, ...]

    def __post_init__(self) -> None:
        if len(self.frames) != len(self.references):
            raise ValueError(
                f"Transcript {self.stream_id!r}: {len(self.frames)} frames but "
                f"{len(self.references)} references; one of each per frame is needed."
            )


@dataclass(frozen=True, kw_only=True)
class Example:
    """One training sequence, before it is batched. The fields are those of ``Batch``."""

    input_ids: Tensor  # (T,) int64
    image_mask: Tensor  # (T,) bool
    image_features: Tensor  # (num image tokens, E) float
    labels: Tensor  # (T,) int64
    dst_labels: Tensor  # (T,) int64
    pos_frame_mask: Tensor  # (T,) bool
    neg_frame_mask: Tensor  # (T,) bool
    dst_pos_frame_mask: Tensor  # (T,) bool
    dst_neg_frame_mask: Tensor  # (T,) bool
    speak_targets: Tensor  # (T,) float32
    dst_targets: Tensor  # (T,) float32
    relevance_pos_frame_mask: Tensor | None = None  # (T,) bool
    relevance_neg_frame_mask: Tensor | None = None  # (T,) bool


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What the collator hands to the model; built only in ``data.collate``.

    Rows are right-padded, or there is one packed row: conversations one behind the other, told
    apart by ``segment_ids``. Padding is known by ``attention_mask`` (made from lengths), never by
    comparing with a token id.
    """

    input_ids: Tensor  # (B, T) int64
    attention_mask: Tensor  # (B, T) int64; 1 real, 0 padding
    image_mask: Tensor  # (B, T) bool; True at image tokens
    image_features: Tensor  # (num image tokens in the batch, E) float; row-major over image_mask
    labels: Tensor  # (B, T) int64; assistant spans, aligned with input_ids; losses shift, once
    dst_labels: Tensor  # (B, T) int64; dst spans, likewise
    pos_frame_mask: Tensor  # (B, T) bool; frames to speak at
    neg_frame_mask: Tensor  # (B, T) bool; frames to stay silent at; disjoint from pos
    dst_pos_frame_mask: Tensor  # (B, T) bool; frames to update the state at
    dst_neg_frame_mask: Tensor  # (B, T) bool; frames to leave it
    speak_targets: Tensor  # (B, T) float32; P(speak) to learn at the frames of the masks
    dst_targets: Tensor  # (B, T) float32; P(update) likewise
    relevance_pos_frame_mask: Tensor | None = None  # (B, T) bool; a step is under way; None: unused
    relevance_neg_frame_mask: Tensor | None = None  # (B, T) bool; none is; disjoint from pos
    segment_ids: Tensor | None = None  # (1, T) int64; conversation of a packed row; None: padded
    lengths: tuple[int, ...] = ()  # tokens of every conversation, in order
    image_counts: tuple[int, ...] = ()  # image tokens of every conversation
    hides_tokens: bool = False  # attention_mask hides more than padding on the right

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Copy to ``device``, a GPU while it computes: it reads the copy when it comes to it.

        Lightning calls this; it refuses a frozen dataclass without it.
        """
        non_blocking = non_blocking or torch.device(device).type == "cuda"
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Copy to pinned memory. DataLoader calls this; without it pinning is silently skipped."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {k: change(v) for k, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **{**values, **tensors})


@dataclass(frozen=True, kw_only=True)
class ModelOutput:
    """What the model returns in training. Logits only; never probabilities."""

    hidden: Tensor  # (B, T, D) after the final norm
    speak_logits: Tensor  # (B, T) float; sigmoid is P(speak), of two heads P(informative)
    dst_logits: Tensor | None  # (B, T) float; sigmoid is P(update); None without the head
    relevance_logits: Tensor | None = None  # (B, T) float; sigmoid is P(relevant); likewise
