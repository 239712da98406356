"""Finds the sources: ``data.source=toy`` is the ``SOURCE`` of ``toy.py`` in this folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Iterator
from functools import cache

from proassist_lit.data import sources
from proassist_lit.data.record_checks import nearest
from proassist_lit.data.sources.source import Source
from proassist_lit.errors import ConfigError


class Sources(Collection[str]):
    """Names of all sources; a file is imported when its name is asked for."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _source(name) is not None

    def __iter__(self) -> Iterator[str]:
        return (name for name in _files() if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


SOURCES = Sources()


@cache
def find_source(name: str) -> Source:
    """The source of a name.

    Raises:
        ConfigError: there is none; names those that there are.
    """
    source = _source(name)
    if source is None:
        raise ConfigError(
            f"data.source must be {'|'.join(SOURCES)}, got {name!r}; the nearest is "
            f"{nearest(name, SOURCES)!r}."
        )
    return source


def _source(name: str) -> Source | None:
    if name not in _files():
        return None
    module = importlib.import_module(f"{sources.__name__}.{name}")
    return getattr(module, "SOURCE", None)


def _files() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(sources.__path__))
