"""Reading JSON that a user wrote: every value is checked, every fault says where and what to do."""

from __future__ import annotations

import difflib
import json
import math
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

from proassist_lit.errors import RecordError

MAX_INDEX = 2**31 - 1
"""Largest frame index or count believed; beyond it (34 years at 2 fps) it is a slip of the pen."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxdict = _SHORT.maxlist = 3
_SHORT.maxlevel = 2


def show(value: object) -> str:
    """Short text of a value, for messages: never longer than a line, never an exception."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python refuses to print integers of more than 4300 digits
        return "a number too long to print"
    return text if len(text) <= 120 else f"{text[:117]}..."


def nearest(word: str, options: Iterable[str]) -> str:
    """The option that is spelt most like ``word``, letter case aside."""
    by_lower = {option.lower(): option for option in options}
    return by_lower[difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.0)[0]]


def load_json(text: str | bytes, where: str) -> Any:
    """Parse JSON strictly: no NaN or infinity, no key given twice.

    Args:
        text: the document; bytes are UTF-8, with or without a byte order mark.
        where: file, or ``file:line``, for the message.

    Raises:
        RecordError: the text is not JSON, or not strictly.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            object_pairs_hook=_unique_keys,
        )
    except (ValueError, RecursionError) as error:  # also covers bytes that are not UTF-8
        raise RecordError(
            f"{where}: not valid JSON: {error}. Write the file with a JSON library, and cut "
            "nothing off."
        ) from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _is_whole(text: str) -> bool:
    """Whether every letter of ``text`` can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {show(twice)} is given twice in one object")
    return made


class Fields:
    """The keys of one JSON object, taken one by one, their types checked.

    A fault is noted, not raised, and a harmless value of the right type returned, so that all
    faults of an object are found in one go. The caller uses nothing of it once there are faults.

    Args:
        raw: the value that should be an object.
        where: file, line and turn, for the messages.
        faults: list that faults are added to.
    """

    def __init__(self, raw: object, where: str, faults: list[RecordError]) -> None:
        self.where = where
        self._faults = faults
        self._is_object = isinstance(raw, dict)
        self._left: dict[str, Any] = dict(raw) if isinstance(raw, dict) else {}
        if not self._is_object:
            self.fault(f"expected a JSON object in braces, got {show(raw)}; write one here")

    def fault(self, message: str) -> None:
        """Note a fault of this object; ``message`` holds what was got and what to do."""
        self._faults.append(RecordError(f"{self.where}: {message}."))

    @property
    def num_faults(self) -> int:
        """Faults noted so far, those of objects around and inside this one included."""
        return len(self._faults)

    def inner(self, raw: object, name: str) -> Fields:
        """The keys of an object inside this one; its faults are noted in the same list."""
        return Fields(raw, f"{self.where}: {name}", self._faults)

    def has(self, key: str) -> bool:
        """Whether ``key`` is given, and neither null nor an empty list or object."""
        return self._left.get(key) not in (None, [], {})

    def is_null(self, key: str) -> bool:
        """Whether ``key`` is given, as null."""
        return key in self._left and self._left[key] is None

    def rest(self) -> dict[str, Any]:
        """What nobody took: unknown keys, and known ones given as null or empty."""
        return self._left

    def text(self, key: str, *, may_be_empty: bool = False) -> str:
        """Take a string; whitespace alone counts as empty."""
        value = self._take(key)
        if not isinstance(value, str):
            self._wrong_type(key, value, "a string")
            return ""
        if not may_be_empty and not value.strip():
            self.fault(f"{key!r} is empty; write its text, or remove the whole entry")
        if not _is_whole(value):
            self.fault(
                f"{key!r} holds half of a surrogate pair, which no tokenizer reads "
                f"({value[:30]!a}); remove that character"
            )
        return value

    def number(self, key: str, *, positive: bool = False) -> float:
        """Take a finite number >= 0 (> 0 if ``positive``); an integer stays one."""
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self._wrong_type(key, value, "a number")
            return 1.0
        try:
            finite = math.isfinite(value)
        except OverflowError:  # an integer beyond the range of a float
            finite = False
        if not finite or value < 0 or (positive and value == 0):
            bound = "> 0" if positive else ">= 0"
            self.fault(f"{key!r} must be a finite number {bound}, got {show(value)}; correct it")
            return 1.0
        return value

    def index(self, key: str, *, minimum: int = 0) -> int:
        """Take an integer from ``minimum`` to ``MAX_INDEX``; true and false are no integers."""
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, int):
            self._wrong_type(key, value, "an integer")
            return minimum
        if not minimum <= value <= MAX_INDEX:
            self.fault(
                f"{key!r} must be from {minimum} to {MAX_INDEX}, got {show(value)}; correct it"
            )
            return minimum
        return value

    def flag(self, key: str) -> bool:
        """Take true or false."""
        value = self._take(key)
        if not isinstance(value, bool):
            self._wrong_type(key, value, "true or false")
            return True
        return value

    def items(self, key: str) -> list[Any]:
        """Take a list."""
        value = self._take(key)
        if not isinstance(value, list):
            self._wrong_type(key, value, "a list")
            return []
        return value

    def words(self, key: str) -> tuple[str, ...]:
        """Take a list of strings, none of them empty."""
        words = self.items(key)
        if not all(isinstance(word, str) and word.strip() for word in words):
            self.fault(
                f"{key!r} must be a list of strings, none empty, got {show(words)}; correct it"
            )
            return ()
        return tuple(words)

    def mapping(self, key: str) -> dict[str, Any]:
        """Take an object whose keys are strings."""
        value = self._take(key)
        if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
            self._wrong_type(key, value, "an object")
            return {}
        return value

    def choice(self, key: str, options: Sequence[str]) -> str:
        """Take one of ``options``; the nearest one is suggested for anything else."""
        value = self._take(key)
        if not isinstance(value, str):
            self._wrong_type(key, value, "a string")
            return options[0]
        if value not in options:
            self.fault(
                f"unknown {key} {show(value)}; did you mean {nearest(value, options)!r}? "
                f"Known: {', '.join(options)}"
            )
            return options[0]
        return value

    def refuse_rest(self) -> None:
        """Note a fault for every key that nobody took."""
        for key in self._left:
            self.fault(
                f"unknown key {show(key)}; remove it, or keep it under the record's metadata"
            )

    def _take(self, key: str) -> object:
        return self._left.pop(key, _MISSING)

    def _wrong_type(self, key: str, value: object, wanted: str) -> None:
        if value is not _MISSING:
            self.fault(f"{key!r} must be {wanted}, got {show(value)}; correct it")
        elif self._is_object:  # else the one fault, that it is no object, says it all
            self.fault(f"the key {key!r} is missing; add it, with {wanted} as its value")


_MISSING = object()
