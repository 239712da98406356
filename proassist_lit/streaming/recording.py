"""A recorded stream, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from proassist_lit.errors import ProAssistError, StreamError
from proassist_lit.sequence.script import Script
from proassist_lit.streaming.arrivals import arriving
from proassist_lit.streaming.config import Strategy
from proassist_lit.streaming.policy import NEVER
from proassist_lit.streaming.stream import Stream
from proassist_lit.types import FrameOutput


@dataclass(frozen=True)
class Recording:
    """A recorded stream to be answered.

    Attributes:
        name: name of the stream, for messages.
        script: what the users say when; of the reference, nothing is looked at unless it makes the
            context.
        features: gives (F, K, E) features, called when the stream begins.
        fps: frames per second.
        start_frame_idx: index of the first frame in the video.
    """

    name: str
    script: Script
    features: Callable[[], Tensor]
    fps: float
    start_frame_idx: int = 0


@dataclass(frozen=True)
class Answered:
    """What became of a recording.

    Attributes:
        index: its place among the recordings.
        frames: the answers, one a frame; fewer if it failed.
        error: why it failed, None if it did not.
        row: place of the thresholds it was answered with, among those asked for.
    """

    index: int
    frames: tuple[FrameOutput, ...]
    error: ProAssistError | None = None
    row: int = 0


def check_length(stream: Stream, script: Script) -> None:
    """Refuse a recording that cannot be watched to its end, however silent the assistant is.

    Args:
        stream: at the beginning; stays as it is.
        script: of the recording.

    Raises:
        StreamError: the context will be full and the strategy is ``none``.
    """
    if stream.config.strategy is not Strategy.NONE:
        return
    probe = stream.copy()
    for index in range(len(script.moments)):
        try:
            probe.check()
        except StreamError as error:
            raise StreamError(
                f"stream {stream.name!r}: its {len(script.moments)} frames are too many for "
                f"stream.strategy=none, even if nothing is said: {error}"
            ) from error
        try:
            probe.begin(*arriving(script, index))
        except StreamError:
            return  # a text is too long: the frames before it can be answered
        probe.decide(NEVER, NEVER)
        probe.cut = None
        probe.end()
