"""Subtitles of an answered stream: SubRip and WebVTT."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from proassist_lit.types import FrameOutput

_LEAST_S = 1.5
_CHARACTERS_PER_S = 15.0
_LOOK_S = 0.5
"""An adult reads some 15 characters a second, after having looked down."""

ASSISTANT, USER = "Assistant", "User"


@dataclass(frozen=True)
class Line:
    """What one person says.

    Attributes:
        speaker: who.
        words: on one line.
    """

    speaker: str
    words: str


@dataclass(frozen=True)
class Cue:
    """What is shown for a while.

    Attributes:
        start_ms: when it appears, milliseconds from the start of the video.
        end_ms: when it is gone.
        lines: what is said.
    """

    start_ms: int
    end_ms: int
    lines: tuple[Line, ...]


def make_cues(frames: Iterable[FrameOutput]) -> list[Cue]:
    """The dialogue as cues: each stays until the next one, or until it can have been read.

    What the user says appears at the frame before which it was heard, with the answer if there is
    one at once.

    Args:
        frames: the answers, in order.
    """
    said: list[tuple[int, tuple[Line, ...]]] = []
    for frame in frames:
        both = (Line(USER, frame.user_text), Line(ASSISTANT, frame.text))
        lines = tuple(
            Line(line.speaker, words) for line in both if (words := " ".join(line.words.split()))
        )
        if lines:
            said.append((round(frame.time_s * 1000), lines))
    ends: list[float] = [start for start, _ in said[1:]]
    return [
        Cue(start, round(min(start + 1000 * reading_time_s(lines), end)), lines)
        for (start, lines), end in zip(said, [*ends, float("inf")], strict=False)
    ]


def reading_time_s(lines: Sequence[Line]) -> float:
    """Seconds that it takes to read ``lines``."""
    num_characters = sum(len(line.words) for line in lines)
    return max(_LEAST_S, _LOOK_S + num_characters / _CHARACTERS_PER_S)


def to_srt(cues: Iterable[Cue]) -> str:
    """A SubRip file. No words begin a tag or end a cue; braces become parentheses."""
    blocks = [
        f"{number}\n{_time(cue.start_ms, ',')} --> {_time(cue.end_ms, ',')}\n"
        + "\n".join(_srt_line(line) for line in cue.lines)
        for number, cue in enumerate(cues, start=1)
    ]
    return "\n\n".join(blocks) + "\n" if blocks else ""


def to_vtt(cues: Iterable[Cue]) -> str:
    """A WebVTT file; the speakers are its voices."""
    blocks = [
        f"{_time(cue.start_ms, '.')} --> {_time(cue.end_ms, '.')}\n"
        + "\n".join(f"<v {line.speaker}>{_vtt_escape(line.words)}</v>" for line in cue.lines)
        for cue in cues
    ]
    return "\n\n".join(["WEBVTT", *blocks]) + "\n"


def _srt_line(line: Line) -> str:
    # The format has no escapes. A word joiner, which nobody sees, keeps players from taking words
    # for tags and arrows; what stands in braces some would hide all the same.
    words = line.words.replace("-->", "--\u2060>").replace("<", "<\u2060")
    words = words.replace("{", "(").replace("}", ")")
    return words if line.speaker == ASSISTANT else f"[{line.speaker}] {words}"


def _vtt_escape(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(ms: int, decimal_sign: str) -> str:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{decimal_sign}{ms:03}"
