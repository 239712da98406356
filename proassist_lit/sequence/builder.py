"""Builds token sequences with aligned labels; together with ``script`` it owns all alignment.

``prefix  [user text] <image>xK  <image>xK [dst span][assistant span]  [user text] <image>xK ...``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.sequence.script import Moment, Script, Text, adjoins
from proassist_lit.sequence.system_turn import system_text
from proassist_lit.types import IGNORE_INDEX, StepState


@dataclass(frozen=True, kw_only=True)
class TokenSequence:
    """One conversation as tokens. Which decisions are trained on is chosen later, by sampling."""

    input_ids: Tensor  # (T,) int64
    labels: Tensor  # (T,) int64; assistant spans, aligned with input_ids
    dst_labels: Tensor  # (T,) int64; dst spans, likewise
    image_mask: Tensor  # (T,) bool; True at image tokens
    decision_positions: Tensor  # (F,) int64; last image token of each frame
    speak_labels: Tensor  # (F,) int8; 1 speak, 0 silent, -1 neither
    dst_update_labels: Tensor  # (F,) int8; likewise for the state
    frame_indices: Tensor  # (F,) int64; absolute in the video
    frames_turns: Tensor  # (F,) int64; number of the frames turn
    has_event: Tensor  # (F,) bool; somebody says something at the frame
    relevance_labels: Tensor | None = None  # (F,) int8; 1 a step is under way, 0 none, -1 unknown

    def __getstate__(self) -> dict[str, Any]:
        """Arrays, for a loader process that is not forked.

        Each tensor would be sent to it with a file descriptor of its own, and a forkserver takes
        256 in all.
        """
        return {k: v.numpy() if isinstance(v, Tensor) else v for k, v in vars(self).items()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            is_array = isinstance(value, np.ndarray)
            object.__setattr__(self, name, torch.from_numpy(value) if is_array else value)


class _Writer:
    """Appends tokens and their labels side by side."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.ids: list[int] = []
        self.labels: list[int] = []
        self.dst_labels: list[int] = []

    def feed(self, ids: list[int]) -> None:
        """Tokens without a loss."""
        self._append(ids, None, learn=False)

    def text(self, text: Text) -> None:
        """A whole turn; assistant and dst turns are learnt, whether or not a frame precedes."""
        chat, role = self.chat, text.role
        if role not in (Role.ASSISTANT, Role.DST):
            self.feed(chat.turn_ids(role, text.content))
            return
        self._append(chat.opening_ids(role), role, learn=chat.format.train_openings)
        self._append([*chat.encode(text.content), chat.end_of_turn_id], role, learn=True)
        self.feed(chat.after_turn_ids)

    def cut(self, length: int) -> None:
        """Forget all but the first ``length`` tokens."""
        for column in (self.ids, self.labels, self.dst_labels):
            del column[length:]

    def _append(self, ids: list[int], role: Role | None, *, learn: bool) -> None:
        nothing = [IGNORE_INDEX] * len(ids)
        self.ids += ids
        self.labels += ids if learn and role is Role.ASSISTANT else nothing
        self.dst_labels += ids if learn and role is Role.DST else nothing


def prefix_ids(
    chat: Chat, script: Script, state: Mapping[str, StepState], told: str = ""
) -> list[int]:
    """Token ids that open a cache: BOS and the system turn; see ``system_turn.system_text``."""
    ids = list(chat.bos_ids)
    content = system_text(script, state, told, overview_first=chat.format.overview_first)
    if content:
        ids += chat.turn_ids(Role.SYSTEM, content)
    return ids


def text_ids(chat: Chat, texts: tuple[Text, ...]) -> list[int]:
    """Token ids of turns that do not follow a frame."""
    writer = _Writer(chat)
    for text in texts:
        writer.text(text)
    return writer.ids


def frame_lengths(script: Script, chat: Chat, num_tokens_per_img: int) -> list[int]:
    """Tokens of every frame with the text before and the spans after it."""
    lengths, previous = [], None
    for moment in script.moments:
        separator = previous is not None and adjoins(previous, moment)
        lengths.append(
            len(text_ids(chat, moment.before))
            + len(chat.separator_ids) * separator
            + num_tokens_per_img
            + len(text_ids(chat, moment.spans))
        )
        previous = moment
    return lengths


def build_sequence(
    script: Script,
    chat: Chat,
    *,
    num_tokens_per_img: int,
    max_seq_len: int,
    relevance: Sequence[int | None] | None = None,
) -> TokenSequence:
    """Write ``script`` as one token sequence.

    Args:
        script: the conversation, frame by frame.
        chat: the formatter.
        num_tokens_per_img: K, image tokens per frame.
        max_seq_len: most tokens; a longer script ends at the last frame, with all that follows
            it, that fits. Nothing after the cut is supervised.
        relevance: what ``ground_truth.relevance_labels`` says of the frames, None where nobody
            learns it. It may know of steps that the script does not tell.

    Returns:
        The sequence; it holds at least one frame, if the script does.

    Raises:
        ValueError: not even the first frame fits.
    """
    writer = _Writer(chat)
    writer.feed(prefix_ids(chat, script, script.initial_state))
    decision_positions: list[int] = []
    previous: Moment | None = None
    cut = False
    for moment in script.moments:
        mark = len(writer.ids)
        for text in moment.before:
            writer.text(text)
        if previous is not None and adjoins(previous, moment):
            writer.feed(chat.separator_ids)
        writer.feed([chat.image_id] * num_tokens_per_img)
        decision = len(writer.ids) - 1
        for span in moment.spans:
            writer.text(span)
        if len(writer.ids) > max_seq_len:
            cut = True
            writer.cut(mark)
            break
        decision_positions.append(decision)
        previous = moment
    if script.moments and not decision_positions:
        raise ValueError(
            f"the prompt and the first frame do not fit into max_seq_len = {max_seq_len} tokens; "
            "raise data.max_seq_len or shorten the system prompt."
        )
    if not cut:
        mark = len(writer.ids)
        for text in script.after:
            writer.text(text)
        if len(writer.ids) > max_seq_len:
            writer.cut(mark)
    kept = script.moments[: len(decision_positions)]
    ids = torch.tensor(writer.ids)
    return TokenSequence(
        input_ids=ids,
        labels=torch.tensor(writer.labels),
        dst_labels=torch.tensor(writer.dst_labels),
        image_mask=ids == chat.image_id,
        decision_positions=torch.tensor(decision_positions, dtype=torch.int64),
        speak_labels=_label_tensor([moment.speak_label for moment in kept]),
        dst_update_labels=_label_tensor([moment.dst_label for moment in kept]),
        frame_indices=torch.tensor([moment.frame_idx for moment in kept], dtype=torch.int64),
        frames_turns=torch.tensor([moment.frames_turn for moment in kept], dtype=torch.int64),
        has_event=torch.tensor([moment.has_event for moment in kept], dtype=torch.bool),
        relevance_labels=None if relevance is None else _label_tensor(relevance[: len(kept)]),
    )


def _label_tensor(labels: Sequence[int | None]) -> Tensor:
    return torch.tensor([-1 if label is None else label for label in labels], dtype=torch.int8)
