"""Reading a judge's verdict from its answer; what cannot be read is told, never guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar

from proassist_lit.judge.answer import Answer
from proassist_lit.judge.prompt import ASPECTS, MAX_SCORE, MIN_SCORE

Scores = Mapping[str, float]
"""A score in [1, 5] for each aspect."""

Choice = Literal["A", "B", "tie"]
"""The better one of two dialogues."""

Choices = Mapping[str, Choice]
"""The better dialogue in each aspect."""

_T = TypeVar("_T")

_DECODER = json.JSONDecoder()
_BEGINS_OBJECT = re.compile(r"\{\s*\"")
_BEGINS_VERDICT = re.compile(r"\{\s*\"(?:" + "|".join(ASPECTS) + r")\"", re.IGNORECASE)


class UnreadableError(ValueError):
    """An answer holds no whole verdict; the message says in a few words why."""


def read_scores(answer: Answer) -> Scores:
    """The four scores of an answer.

    The last JSON object that names an aspect is the verdict, wherever it stands: after an analysis,
    in a code fence, within another object.

    Raises:
        UnreadableError: the answer was cut off, or there is no such object, or it lacks an aspect,
            or has a value that is no number in [1, 5].
    """
    return _read(answer, _score)


def read_choices(answer: Answer) -> Choices:
    """The better dialogue in four aspects; read as ``read_scores`` does.

    Raises:
        UnreadableError: likewise; a value must be A, B or tie.
    """
    return _read(answer, _choice)


def read_all(
    answers: Iterable[Answer], read: Callable[[Answer], _T]
) -> tuple[tuple[_T, ...], tuple[str, ...]]:
    """The verdicts that ``read`` can read, and why it could not read the others."""
    verdicts, unreadable = [], []
    for answer in answers:
        try:
            verdicts.append(read(answer))
        except UnreadableError as error:
            unreadable.append(str(error))
    return tuple(verdicts), tuple(unreadable)


def _read(answer: Answer, read_value: Callable[[Any], _T | None]) -> dict[str, _T]:
    if answer.finish_reason not in ("stop", ""):
        # Even if an object stands there: what would have followed might have mended it.
        raise UnreadableError(f"the answer ended early ({answer.finish_reason})")
    if not answer.text.strip():
        raise UnreadableError("the answer is empty")
    verdict = None
    for verdict in _verdicts(answer.text):  # noqa: B007  the last one counts
        pass
    if verdict is None:
        raise UnreadableError("no JSON object with the aspects")
    out = {}
    for aspect in ASPECTS:
        if aspect not in verdict:
            raise UnreadableError(f"{aspect} is missing")
        value = read_value(verdict[aspect])
        if value is None:
            raise UnreadableError(f"{aspect} has no valid value")
        out[aspect] = value
    return out


def _verdicts(text: str) -> Iterator[dict[str, Any]]:
    """Objects that name an aspect, in order; one that cannot be read as JSON is an empty one."""
    at = 0
    while begin := _BEGINS_OBJECT.search(text, at):
        at = begin.start() + 1
        try:
            found, end = _DECODER.raw_decode(text, begin.start())
        except (ValueError, RecursionError):
            if _BEGINS_VERDICT.match(text, begin.start()):
                yield {}
        else:
            named = {key.strip().lower(): value for key, value in found.items()}
            if named.keys() & set(ASPECTS):
                yield named
                at = end


def _score(value: Any) -> float | None:
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]+(\.[0-9]+)?\s*", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if MIN_SCORE <= value <= MAX_SCORE else None


def _choice(value: Any) -> Choice | None:
    known: dict[str, Choice] = {"a": "A", "b": "B", "tie": "tie"}
    return known.get(value.strip().lower()) if isinstance(value, str) else None
