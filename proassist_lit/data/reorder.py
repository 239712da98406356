"""Recordings that could have been: the steps of a real one in another order that its plan allows.

Few recordings of a task can be learnt by heart, step by step; then nothing is learnt from looking.
Only training has such recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from proassist_lit.data.seeding import stable_rng
from proassist_lit.data.timeline import Step, Timeline

_LEAST_BETWEEN_S = 1.0  # from the beginning of a step to that of the next, where steps overlap


def further_orders(timelines: Sequence[Timeline], count: int, *, seed: int) -> list[Timeline]:
    """``count`` further recordings of each, except of those whose order cannot change.

    Args:
        timelines: what really happened.
        count: of each; >= 0.
        seed: of the orders.
    """
    made = (
        reordered(timeline, stable_rng("order", seed, timeline.video_uid, i), f"order{i}")
        for timeline in timelines
        for i in range(1, count + 1)
    )
    return [timeline for timeline in made if timeline is not None]


def reordered(timeline: Timeline, rng: np.random.Generator, suffix: str) -> Timeline | None:
    """``timeline`` with its steps in a random order, in another scene.

    Steps of which one needs the other follow each other as they did, also where that was wrong, so
    that every mistake stays one, and do not overlap where they did not. A step of which the plan
    does not tell what it needs keeps its place among all others. Each step lasts as long as it did,
    with its mistakes and activities; the pauses between steps stay where they were.

    Args:
        timeline: what really happened.
        rng: draws the order.
        suffix: of the new name.

    Returns:
        None if the drawn order is the old one.
    """
    performed = timeline.performed()
    order = _draw_order(performed, rng)
    if order == performed:
        return None
    moved_s = _moves(performed, order)
    steps = tuple(_moved_step(step, moved_s.get(step.id, 0.0)) for step in timeline.steps)
    activities = [
        replace(a, start_s=a.start_s + moved_s.get(a.step_id, 0.0),
                end_s=a.end_s + moved_s.get(a.step_id, 0.0))
        for a in timeline.activities
    ]  # fmt: skip
    tail_s = timeline.duration_s - _last_end_s(timeline.steps)
    return replace(
        timeline,
        video_uid=f"{timeline.video_uid}_{suffix}",
        duration_s=_last_end_s(steps) + tail_s,
        steps=steps,
        activities=tuple(sorted(activities, key=lambda a: (a.start_s, a.end_s))),
        scene_seed=int(rng.integers(2**32)),
        metadata={**timeline.metadata, "order_of": timeline.video_uid},
    )


def _draw_order(performed: Sequence[Step], rng: np.random.Generator) -> list[Step]:
    """Any order in which no two steps of which one needs the other change places."""
    waiting, order = list(performed), list[Step]()
    while waiting:
        free = [
            step
            for place, step in enumerate(waiting)
            if not any(_bound(earlier, step) for earlier in waiting[:place])
        ]
        order.append(free[int(rng.integers(len(free)))])
        waiting.remove(order[-1])
    return order


def _bound(one: Step, other: Step) -> bool:
    if one.needs is None or other.needs is None:
        return True
    return one.id in other.needs or other.id in one.needs


def _moves(performed: Sequence[Step], order: Sequence[Step]) -> dict[str, float]:
    """By how many seconds each step comes later (or, below 0, earlier)."""
    moved_s: dict[str, float] = {}
    start_s = _span(performed[0])[0]
    for place, step in enumerate(order):
        old_start_s, old_end_s = _span(step)
        ended_s = [  # the overlaps that stay in their places are of other steps
            _span(earlier)[1] + moved_s[earlier.id]
            for earlier in order[:place]
            if _bound(earlier, step) and _span(earlier)[1] <= old_start_s
        ]
        start_s = max([start_s, *ended_s])
        moved_s[step.id] = start_s - old_start_s
        if place + 1 < len(performed):
            pause_s = _span(performed[place + 1])[0] - _span(performed[place])[1]  # < 0: overlap
            end_s = old_end_s + moved_s[step.id]
            start_s = max(end_s + pause_s, start_s + _LEAST_BETWEEN_S)
    return moved_s


def _moved_step(step: Step, by_s: float) -> Step:
    if step.start_s is None or step.end_s is None:
        return step
    return replace(
        step,
        start_s=step.start_s + by_s,
        end_s=step.end_s + by_s,
        mistakes=tuple(replace(m, time_s=m.time_s + by_s) for m in step.mistakes),
    )


def _span(step: Step) -> tuple[float, float]:
    assert step.start_s is not None
    assert step.end_s is not None
    return step.start_s, step.end_s


def _last_end_s(steps: Sequence[Step]) -> float:
    return max((step.end_s for step in steps if step.end_s is not None), default=0.0)
