"""Assistants that do not look: what any result must be compared with.

``always_silent``, ``always_speak`` and ``clock`` use no model; ``blind`` is the trained model on
another recording's features, ``blind_zeros`` on features of zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from proassist_lit.data.conversation import AssistantTurn, Conversation
from proassist_lit.sequence.ground_truth import references
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.arrivals import heard, user_words
from proassist_lit.streaming.evaluate import make_transcript
from proassist_lit.types import FrameOutput, Transcript


def frequent_utterance(conversations: Sequence[Conversation]) -> str:
    """The utterance that training shows most often (of equals, the first by alphabet)."""
    counts = Counter(
        turn.content
        for conversation in conversations
        for turn in conversation.turns
        if isinstance(turn, AssistantTurn) and turn.content.strip()
    )
    if not counts:
        return "Okay."
    most = max(counts.values())
    return min(text for text, count in counts.items() if count == most)


def speak_when(conversation: Conversation, text: str, speak: Callable[[int], bool]) -> Transcript:
    """Transcript of an assistant that says ``text`` at the frames that ``speak`` names.

    Args:
        conversation: the stream.
        text: what it always says.
        speak: given the number of the frame in the stream, from 0.
    """
    script = read_script(conversation)
    state = dict(script.initial_state)
    frames = []
    for index, moment in enumerate(script.moments):
        yes = speak(index)
        frames.append(
            FrameOutput(
                frame_idx=moment.frame_idx,
                time_s=moment.frame_idx / conversation.fps,
                speak_prob=float(yes),
                dst_prob=0.0 if script.steps else None,
                speak=yes,
                dst=False,
                text=text if yes else "",
                state=state,
                user_text=user_words(heard(script, index)),
            )
        )
    return make_transcript(conversation, script, frames)


def utterance_intervals_s(conversations: Sequence[Conversation]) -> np.ndarray:
    """(n,) float64 seconds between utterances that follow each other, over all conversations.

    From frame to frame, as a clock speaks and is scored: turns need not tell their times.
    """
    gaps: list[float] = []
    for conversation in conversations:
        script = read_script(conversation)
        both = zip(script.moments, references(script), strict=True)
        spoken = [moment.frame_idx for moment, reference in both if reference.text]
        gaps += [(b - a) / conversation.fps for a, b in pairwise(spoken)]
    return np.array(gaps)


def clock_candidates(conversations: Sequence[Conversation]) -> list[float]:
    """Intervals in seconds to try on val, around those that training shows."""
    gaps = utterance_intervals_s(conversations)
    if not len(gaps):
        return [10.0]
    mean = float(gaps.mean())
    return sorted({round(max(x, 0.5), 2) for x in (*np.percentile(gaps, [25, 50, 75]), mean,
                                                   mean / 2, mean * 1.5)})  # fmt: skip


def clock(conversation: Conversation, text: str, interval_s: float) -> Transcript:
    """Transcript of an assistant that says ``text`` every ``interval_s`` seconds."""
    every = max(round(interval_s * conversation.fps), 1)
    return speak_when(conversation, text, lambda index: index % every == every - 1)


def borrowed_features(
    conversations: Sequence[Conversation],
    index: int,
    read_features: Callable[[Conversation], Tensor],
) -> Tensor:
    """Features of another recording for conversation ``index``, cut or repeated to its length.

    Where there is one recording only, its own frames run backwards.

    Returns:
        (F, K, E).
    """
    mine = conversations[index]
    others = [
        conversations[(index + shift) % len(conversations)]
        for shift in range(1, len(conversations))
    ]
    other = next((c for c in others if c.video_uid != mine.video_uid), None)
    features = read_features(mine).flip(0) if other is None else read_features(other)
    repeats = -(-mine.num_frames // len(features))
    return torch.cat([features] * repeats)[: mine.num_frames]
