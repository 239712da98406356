"""Streams shared out over the processes of a run, and their answers brought together again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from heapq import heapreplace
from typing import TypeVar

from torch import distributed

from proassist_lit.errors import ProAssistError

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def rank() -> int:
    """Number of this process; 0 where there is only one."""
    return distributed.get_rank() if _are_many() else 0


def share(items: Sequence[T]) -> list[T]:
    """What of ``items`` is this process's work: every so many, from its rank on."""
    return [items[number] for number in share_by_size([1] * len(items))]


def share_by_size(sizes: Sequence[int]) -> list[int]:
    """Numbers of what is this process's work, rising; every process has nearly as much to do.

    The largest first, each goes to the process that has least so far (Graham, 1969).

    Args:
        sizes: how much work each is, frames say; the same in every process.
    """
    world = distributed.get_world_size() if _are_many() else 1
    loads = [(0, process) for process in range(world)]  # a heap: the least is first
    mine = []
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        load, process = loads[0]
        heapreplace(loads, (load + sizes[number], process))
        if process == rank():
            mine.append(number)
    return sorted(mine)


def bring_together(mine: Mapping[K, T], error: ProAssistError | None = None) -> dict[K, T]:
    """What all processes found; each must call this, also one that failed.

    Args:
        mine: what this process found, by number or another key.
        error: why it did not find all; None if it did.

    Raises:
        ProAssistError: some process failed; the others wait for no one.
    """
    everyones: list[tuple[dict[K, T], ProAssistError | None]] = [(dict(mine), error)]
    if _are_many():
        everyones *= distributed.get_world_size()
        distributed.all_gather_object(everyones, (dict(mine), error))
    for _, theirs in everyones:
        if theirs is not None:
            raise theirs
    return {number: found for part, _ in everyones for number, found in part.items()}


def work_shared(work: Callable[[int], T], sizes: Sequence[int]) -> dict[int, T]:
    """What ``work`` makes of every number below that of ``sizes``, each process doing its share.

    Args:
        work: given a number.
        sizes: how much work each number is.

    Raises:
        ProAssistError: ``work`` raised it in some process; the others wait for no one.
    """
    mine: dict[int, T] = {}
    failed: ProAssistError | None = None
    try:
        for number in share_by_size(sizes):
            mine[number] = work(number)
    except ProAssistError as error:
        failed = error
    return bring_together(mine, failed)


def _are_many() -> bool:
    return bool(distributed.is_available() and distributed.is_initialized())
