"""The tree of keys that a configuration may have, and the way between it and plain data.

Plain data is what YAML holds: mappings, lists, numbers and text; a choice is written as the
enum's value (``per_turn``), or is text that a collection holds: ``Annotated[str, names]``. Nothing
here knows Hydra.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, fields, is_dataclass, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from proassist_lit.atomic import write_text
from proassist_lit.config_hints import (
    build,
    choices_of,
    describe,
    element_of,
    fits,
    is_mapping,
    section,
    spelling,
    split_optional,
)
from proassist_lit.data.record_checks import nearest, show
from proassist_lit.errors import ConfigError

T = TypeVar("T")


class Schema:
    """Every key of a configuration with its type.

    Args:
        root: dataclass of the whole configuration.
        beside: further sections at the top that are not part of ``root``, by name.
    """

    def __init__(self, root: type, *, beside: Mapping[str, type] | None = None) -> None:
        self.root = root
        self._beside = dict(beside or {})

    def hint(self, key: str) -> Any:
        """Type of a dotted key; "" is the whole.

        Raises:
            ConfigError: there is no such key; names the part that is wrong and the nearest key.
        """
        hint: Any = self.root
        known = ""
        for name in key.split(".") if key else ():
            names = self._names(hint, known)
            inner = element_of(split_optional(hint)[0])
            if names is not None and name in names:
                hint = names[name]
            elif inner is not None:
                hint = inner
            else:
                raise ConfigError(self.unknown(known, name))
            known = _join(known, name)
        return hint

    def settings(self) -> Iterator[tuple[str, Any]]:
        """Dotted name and type of every key of ``root``, sections left out."""
        return _leaves(self.root, "")

    def number_type(self, key: str) -> type | None:
        """Which numbers a key takes: int or float; None for another key.

        Raises:
            ConfigError: there is no such key.
        """
        hint, _ = split_optional(self.hint(key))
        return hint if hint in (int, float) else None

    def is_section(self, key: str) -> bool:
        """Whether ``key`` is a part with keys of its own."""
        try:
            hint = self.hint(key)
        except ConfigError:
            return False
        return hint is Any or is_dataclass(split_optional(hint)[0])

    def unknown(self, section: str, name: str, *, also: Iterable[str] = ()) -> str:
        """What to say about ``name``, which ``section`` has not.

        Args:
            section: dotted key, "" for the top.
            name: the wrong name.
            also: names that would have been right besides the keys, say config groups.
        """
        if "." in name:
            return (
                f"the key {name!r} has dots; in a file, write nested keys "
                f"({': '.join(name.split('.'))}: ...)."
            )
        names = self._names(self.hint(section), section)
        if names is None:
            kind = describe(self.hint(section))
            return f"{section!r} is no section but {kind}; it has no part {name!r}."
        elsewhere = [key for key, _ in self.settings() if key.rpartition(".")[2] == name]
        guess = elsewhere[0] if elsewhere else _join(section, nearest(name, [*names, *also]))
        if not section:
            return f"there is no key or config group {name!r}; the nearest is {guess!r}."
        return f"the section {section!r} has no key {name!r}; the nearest is {guess!r}."

    def faults(
        self, value: object, key: str = "", *, final: bool = False
    ) -> Iterator[tuple[str, str]]:
        """What is wrong with plain data.

        Args:
            value: the data.
            key: where it belongs, a valid dotted key; "" for the whole configuration.
            final: the values are the run's; else interpolations (``${...}``) and ``???``, whose
                value is not known yet, are taken as right.

        Yields:
            (dotted key, message) of each fault.
        """
        yield from self._faults(self.hint(key), value, key, final)

    def _faults(self, hint: Any, value: object, key: str, final: bool) -> Iterator[tuple[str, str]]:
        hint, optional = split_optional(hint)
        if hint is Any or (value is None and optional):
            return
        if not final and isinstance(value, str) and ("${" in value or value == "???"):
            return
        names, element = self._names(hint, key), element_of(hint)
        if names is not None and isinstance(value, Mapping):
            for name, inner in value.items():
                if name in names:
                    yield from self._faults(names[name], inner, _join(key, str(name)), final)
                else:
                    yield _join(key, str(name)), self.unknown(key, str(name))
        elif element is not None and isinstance(value, Mapping if is_mapping(hint) else list):
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            for name, inner in pairs:
                yield from self._faults(element, inner, _join(key, str(name)), final)
        elif names is not None or element is not None or not fits(hint, value):
            yield key, _mismatch(hint, optional, value, key)

    def _names(self, hint: Any, key: str) -> Mapping[str, Any] | None:
        """Keys of a section with their types; None if ``hint`` is no section."""
        names = section(split_optional(hint)[0])
        return {**names, **self._beside} if names is not None and not key else names


def from_plain(root: type[T], data: Mapping[str, Any], *, where: str = "") -> T:
    """Make the dataclasses of a configuration.

    Args:
        root: dataclass of the whole configuration.
        data: plain data without interpolations; a key that is missing keeps its default.
        where: file, for the message.

    Raises:
        ConfigError: unknown keys or values of another type, one a line.
        ProAssistError: what the dataclasses themselves refuse.
    """
    if faults := [message for _, message in Schema(root).faults(data, final=True)]:
        raise ConfigError("\n".join(f"{where}: {m}" if where else m for m in faults))
    return cast(T, build(root, data))


def to_plain(config: Any) -> Any:
    """The plain data of a configuration; ``from_plain`` is the way back."""
    if is_dataclass(config):
        return {f.name: to_plain(getattr(config, f.name)) for f in fields(config)}
    if isinstance(config, Mapping):
        return {name: to_plain(value) for name, value in config.items()}
    if isinstance(config, list):
        return [to_plain(value) for value in config]
    return spelling(config) if isinstance(config, Enum) else config


def read_config(root: type[T], path: Path) -> T:
    """Read a ``config.yaml`` that a run has left.

    Raises:
        ConfigError: the file cannot be read, or does not fit ``root``.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read: {reason}. Check the path.") from error
    return from_plain(root, data, where=str(path))


def write_config(config: Any, path: Path) -> None:
    """Write a configuration as ``config.yaml``, atomically; ``read_config`` is the way back."""
    write_text(path, yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True))


def plain_twin(config: Any) -> type:
    """A dataclass like that of ``config``, but text for every enum, and anything in mappings.

    OmegaConf knows an enum's members by their names only (``PER_TURN``) and would refuse what
    files and messages call them; and of a list within a mapping it takes no int for a float.
    ``from_plain`` checks and converts both. The values of ``config`` are the twin's defaults.
    """
    hints = typing.get_type_hints(type(config))
    members: list[Any] = []
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            twin = plain_twin(value)
            members.append((f.name, twin, field(default_factory=twin)))
        elif isinstance(value, list | dict):
            plain = to_plain(value)
            members.append((f.name, _plain_hint(hints[f.name]), _fresh(plain)))
        else:
            members.append((f.name, _plain_hint(hints[f.name]), field(default=to_plain(value))))
    return make_dataclass(type(config).__name__, members, kw_only=True)


def _fresh(value: Any) -> Any:
    return field(default_factory=lambda: type(value)(value))


def _join(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _leaves(hint: type, key: str) -> Iterator[tuple[str, Any]]:
    for name, inner in (section(hint) or {}).items():
        if is_dataclass(split_optional(inner)[0]):
            yield from _leaves(split_optional(inner)[0], _join(key, name))
        else:
            yield _join(key, name), inner


def _mismatch(hint: Any, optional: bool, value: object, key: str) -> str:
    wanted = describe(hint | None if optional and hint is not Any else hint)
    text = f"{key} must be {wanted}, got {show(value)}"
    if (choices := choices_of(hint)) is not None and isinstance(value, str):
        return f"{text}; the nearest is {nearest(value, choices)!r}."
    if isinstance(value, bool) and not is_dataclass(hint):
        return f"{text}; put quotes around text that YAML takes for a bool."
    return f"{text}."


def _plain_hint(hint: Any) -> Any:
    inner, optional = split_optional(hint)
    if isinstance(inner, type) and issubclass(inner, Enum):
        inner = str
    elif is_dataclass(inner):
        inner = plain_twin(cast(type, inner)())
    elif typing.get_origin(inner) is list:
        inner = list[_plain_hint(typing.get_args(inner)[0])]  # type: ignore[misc]
    elif is_mapping(inner):
        inner = dict[str, Any]
    return inner | None if optional else inner
