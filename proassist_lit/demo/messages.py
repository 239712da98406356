"""What clients say to the server, checked: a message is understood or refused, with a reason."""

from __future__ import annotations

import io
import json
import math
import struct
from dataclasses import dataclass
from typing import Any

from PIL import Image

from proassist_lit.demo.limits import Limits

CLOSE_CODES = {
    "malformed": 4400,
    "token": 4401,
    "origin": 4403,
    "unknown_task": 4404,
    "hello": 4408,
    "replaced": 4409,
    "over": 4410,
    "too_large": 4413,
    "full": 4429,
    "failed": 4500,
}
"""Reasons for which a connection is closed, with the code it is closed with."""

_HEADER = struct.Struct(">I")
"""Before the JPEG of a frame: its number, at the assistant's frames per second."""


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault of ours
    """A message that is not obeyed.

    Attributes:
        reason: one word for programs; with a code of its own, the connection is closed.
        message: for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message

    @property
    def close_code(self) -> int | None:
        """The code to close the connection with; None to go on."""
        return CLOSE_CODES.get(self.reason)

    def to_json(self) -> dict[str, Any]:
        """As a message to the client."""
        return {"type": "refused", "reason": self.reason, "message": self.message}


@dataclass(frozen=True)
class Hello:
    """How a connection begins: a new session, or the one that it had."""

    token: str
    task: str
    session: str


@dataclass(frozen=True)
class Say:
    """The user said something."""

    words: str


@dataclass(frozen=True)
class SetThresholds:
    """The session shall decide by others."""

    speak: float
    dst: float


@dataclass(frozen=True)
class Bye:
    """The session is over."""


@dataclass(frozen=True)
class Frame:
    """A picture.

    Attributes:
        number: its place among the frames of the session.
        jpeg: as it came; only its header has been read.
    """

    number: int
    jpeg: bytes


Message = Hello | Say | SetThresholds | Bye


def read_text(text: str, limits: Limits) -> Message:
    """Read a message that is no frame.

    Raises:
        Refusal: it is too long, or none that is known.
    """
    if len(text) > limits.max_message_chars:
        raise Refusal("too_large", f"messages have at most {limits.max_message_chars} characters")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise Refusal("malformed", "a message is a JSON object or a frame") from None
    match raw:
        case {"type": "hello"}:
            values = [raw.get(key) or "" for key in ("token", "task", "session")]
            if all(map(_is_text, values)):
                return Hello(*values)
        case {"type": "say", "text": str(words)} if _is_text(words):
            words = " ".join(words.split())
            if len(words) > limits.max_words:
                raise Refusal("too_many_words", f"say at most {limits.max_words} characters")
            if words:
                return Say(words)
        case {"type": "thresholds", "speak": speak, "dst": dst}:
            # By stream.rule, speak may be anything.
            if _is_number(speak) and _is_number(dst) and 0 <= dst <= 1:
                return SetThresholds(float(speak), float(dst))
        case {"type": "bye"}:
            return Bye()
    raise Refusal("malformed", "no such message, or with other values than it may have")


def read_frame(data: bytes, limits: Limits) -> Frame:
    """Read a frame as far as can be done without decoding its picture.

    Raises:
        Refusal: it is too large, or no JPEG.
    """
    jpeg = data[_HEADER.size :]
    if len(jpeg) > limits.max_frame_bytes:
        raise Refusal("too_large", f"frames have at most {limits.max_frame_kib} KiB")
    try:
        (number,) = _HEADER.unpack(data[: _HEADER.size])
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as picture:
            width, height = picture.size
    except (struct.error, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise Refusal("malformed", "a frame is 4 bytes of its number and a JPEG") from None
    if max(width, height) > limits.max_side:
        raise Refusal("too_large", f"frames have at most {limits.max_side} pixels a side")
    return Frame(number, jpeg)


def _is_number(value: object) -> bool:
    """Whether it is a finite number; JSON may hold whole ones that are beyond all floats."""
    try:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
    except OverflowError:
        return False


def _is_text(value: object) -> bool:
    """Whether it is text that can be written; JSON may hold halves of characters."""
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False
