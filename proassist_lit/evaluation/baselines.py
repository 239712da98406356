"""Answers of those who do not look, beside which every result stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from proassist_lit.data.conversation import Conversation
from proassist_lit.data.dataset import ConversationSet
from proassist_lit.evaluation.streamer import OnStream, Outcome, Streamer
from proassist_lit.streaming.baselines import (
    borrowed_features,
    clock,
    clock_candidates,
    frequent_utterance,
    speak_when,
)
from proassist_lit.streaming.policy import Thresholds
from proassist_lit.types import Transcript

BLIND = ("blind", "blind_zeros")
"""Baselines that the model itself answers: on another recording's features, and on zeros."""


def unlooking(
    data: ConversationSet,
    train: Sequence[Conversation],
    val: Sequence[Conversation],
    worth: Callable[[Sequence[Transcript]], float],
) -> dict[str, list[Transcript]]:
    """``always_silent``, ``always_speak`` and ``clock`` on the streams of ``data``.

    Args:
        data: the streams.
        train: gives the words and the rhythm.
        val: on which the clock's interval is chosen.
        worth: score of streams, by which that interval is.
    """
    text = frequent_utterance(train)
    interval_s = max(clock_candidates(train), key=lambda s: worth([clock(c, text, s) for c in val]))
    return {
        "always_silent": [speak_when(c, "", lambda _: False) for c in data],
        "always_speak": [speak_when(c, text, lambda _: True) for c in data],
        "clock": [clock(c, text, interval_s) for c in data],
    }


def blind(
    streamer: Streamer, data: ConversationSet, thresholds: Thresholds, on_stream: OnStream
) -> dict[str, list[Outcome]]:
    """``blind`` and ``blind_zeros``: the model on features that tell nothing of the stream."""

    def other(index: int) -> Tensor:
        return borrowed_features(data.conversations, index, data.features)

    def zeros(index: int) -> Tensor:
        return torch.zeros_like(other(index))

    return {
        name: streamer.answer(data.conversations, features, [thresholds], on_stream=on_stream)[0]
        for name, features in zip(BLIND, (other, zeros), strict=True)
    }
