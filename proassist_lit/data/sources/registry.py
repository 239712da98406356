"""Finds the sources: ``data.source=toy`` is the ``SOURCE`` of ``toy.py`` in this folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping

from proassist_lit.data import sources
from proassist_lit.data.record_checks import nearest
from proassist_lit.data.sources.source import Source
from proassist_lit.errors import ConfigError


class Sources(Mapping[str, Source]):
    """Every source by its name; a file is imported when its name is asked for."""

    def __getitem__(self, name: str) -> Source:
        source: Source | None = None
        if name in _files():
            module = importlib.import_module(f"{sources.__name__}.{name}")
            source = getattr(module, "SOURCE", None)
        if source is None:
            raise KeyError(name)
        return source

    def __iter__(self) -> Iterator[str]:
        return (name for name in _files() if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


SOURCES = Sources()


def find_source(name: str) -> Source:
    """The source of a name.

    Raises:
        ConfigError: there is none; names those that there are.
    """
    if name not in SOURCES:
        raise ConfigError(
            f"data.source must be {'|'.join(SOURCES)}, got {name!r}; the nearest is "
            f"{nearest(name, SOURCES)!r}."
        )
    return SOURCES[name]


def _files() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(sources.__path__))
