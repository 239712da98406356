"""What a type hint of a configuration tells: its choices and parts, and which values it takes.

A hint is that of a dataclass's field. Values are plain data, what YAML holds; a choice is written
as the enum's value (``per_turn``), or is text that a collection holds: ``Annotated[str, names]``.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Annotated, Any, Union

_TRUE, _FALSE = ("yes", "y", "on", "true", "1"), ("no", "n", "off", "false", "0")


def describe(hint: Any) -> str:
    """A type in words, for messages and the help."""
    hint, optional = split_optional(hint)
    if (choices := choices_of(hint)) is not None:
        text = "|".join(choices)
    elif (element := element_of(hint)) is not None and element is not Any:
        text = f"{'mapping' if is_mapping(hint) else 'list'} of {describe(element)}"
    elif is_dataclass(hint):
        text = "a section"
    else:
        text = getattr(hint, "__name__", str(hint))
    return f"{text} or null" if optional else text


def is_mapping(hint: Any) -> bool:
    """Whether a type is that of a mapping with keys of the user's choice."""
    return (typing.get_origin(hint) or hint) is dict


def split_optional(hint: Any) -> tuple[Any, bool]:
    """``X | None`` -> (X, True); another union is taken as anything."""
    if typing.get_origin(hint) not in (Union, types.UnionType):
        return hint, False
    inner = [arg for arg in typing.get_args(hint) if arg is not types.NoneType]
    return (inner[0] if len(inner) == 1 else Any), len(inner) < len(typing.get_args(hint))


def section(hint: Any) -> Mapping[str, Any] | None:
    """Keys of a section with their types; None for anything else."""
    return _hints(hint) if isinstance(hint, type) and is_dataclass(hint) else None


@functools.cache
def _hints(section: type) -> Mapping[str, Any]:
    hints = typing.get_type_hints(section, include_extras=True)
    return {f.name: hints[f.name] for f in fields(section)}


def choices_of(hint: Any) -> Collection[str] | None:
    """What may be written for a choice; None for anything else."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [spelling(member) for member in hint]
    return hint.__metadata__[0] if typing.get_origin(hint) is Annotated else None


def element_of(hint: Any) -> Any:
    """Type of the parts of a list or mapping; None for anything else."""
    if hint is Any:
        return Any
    if (typing.get_origin(hint) or hint) not in (list, dict):
        return None
    return (typing.get_args(hint) or (Any,))[-1]


def spelling(member: Enum) -> str:
    """How a choice is written: its value, or its name where the value is no text."""
    return member.value if isinstance(member.value, str) else member.name


def fits(hint: Any, value: object) -> bool:
    """Whether a key of this type, which has no parts, takes ``value``."""
    try:
        _leaf(hint, value)
    except (TypeError, ValueError, KeyError):
        return False
    return True


def build(hint: Any, value: Any) -> Any:
    """The value of a hint made of plain data that is known to fit it."""
    hint, _ = split_optional(hint)
    if value is None or hint is Any:
        return value
    if (names := section(hint)) is not None:
        return hint(**{name: build(names[name], inner) for name, inner in value.items()})
    if (element := element_of(hint)) is not None:
        if isinstance(value, Mapping):
            return {name: build(element, inner) for name, inner in value.items()}
        return [build(element, inner) for inner in value]
    return _leaf(hint, value)


def _leaf(hint: Any, value: Any) -> Any:
    """Convert as OmegaConf does, but never a bool to text: ``resume: no`` means "no"."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        if isinstance(value, hint):
            return value
        return {spelling(member): member for member in hint}[_text(value)]
    if typing.get_origin(hint) is Annotated:
        text = _text(value)
        if text not in hint.__metadata__[0]:
            raise ValueError
        return text
    if hint is bool:
        word = str(value).lower()
        if not isinstance(value, bool | int | str) or word not in _TRUE + _FALSE:
            raise ValueError
        return word in _TRUE
    if hint in (int, float):
        numbers = (int, str) if hint is int else (int, float, str)
        if isinstance(value, bool) or not isinstance(value, numbers):
            raise ValueError
        return hint(value)
    return _text(value) if hint is str else value


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError
    return str(value)
