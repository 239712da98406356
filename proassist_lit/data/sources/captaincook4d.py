"""CaptainCook4D: real cooking recordings with their steps and mistakes, as timelines.

The annotations are read as their authors publish them (arXiv:2312.14556). What they leave open is
settled by these rules:

- *Plan.* The steps of a recipe are the nodes of its task graph in topological order, of the free
  ones the smallest node first; so ``S3`` is the same step in every recording of a recipe. Without
  a graph the first recording of the recipe gives the plan, in its order. Steps that a recording
  has beyond the plan follow at its end.
- *Which step.* A row belongs to the plan's step of the same description, or, where there is none,
  of the description that its ``step_id`` mostly has in the recipe. Where a recipe repeats a step,
  the k-th performance is the k-th of them. A step done more often than planned lasts from its
  first start to its last end. A step that was not performed at all is skipped.
- *When a mistake shows.* The annotations time steps, not mistakes: one is taken to show halfway
  through its step, a wrong order near the step's beginning, wrong timing near its end.
- *Activities.* Each performance is work, interrupted by a mistake for a quarter of its time.
  Steps overlap in real kitchens; so do the activities. Nearly half of the steps share object and
  tool with another of their recipe (rinse, peel, chop the cucumber), so the verb is shown, too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from proassist_lit.data.sources.captaincook4d_descriptions import Description, parse_description
from proassist_lit.data.sources.captaincook4d_files import (
    ERRORS_FILE,
    SPLIT_FILE,
    STEPS_FILE,
    VIDEO_FILE,
    Recording,
    Row,
    join_errors,
    read_durations,
    read_errors,
    read_recordings,
    read_splits,
)
from proassist_lit.data.sources.captaincook4d_plan import Plan, make_plan, normalised
from proassist_lit.data.sources.source import AnnotatedSource
from proassist_lit.data.timeline import Activity, ActivityKind, Mistake, Step, Timeline
from proassist_lit.errors import RecordError

SHOWS_AT = {"Order Error": 0.1, "Timing Error": 0.9}
"""Share of a step after which a mistake of a kind can be seen; halfway for all others."""

_MISTAKE_SHARE = 0.25  # of the performance, the stretch in which the mistake is seen
_TAIL_S = 5.0  # after the last step, where the length of a recording is not known
_ROUNDING_S = 1.0  # steps may end this much after the recording, whose length is rounded


def read_captaincook4d(root: Path) -> dict[str, list[Timeline]]:
    """Read the annotations below ``root``.

    Args:
        root: folder of the authors' files: ``annotation_json``, ``data_splits``, ``metadata`` and,
            if there, ``task_graphs``.

    Returns:
        Timelines of each split, as the split file names and orders them.

    Raises:
        RecordError: a file is missing or not JSON, a recording of a split is not annotated, its
            times are reversed, or anything has an unknown shape; names the file and recording.
    """
    splits = read_splits(root / SPLIT_FILE)
    recordings = read_recordings(root / STEPS_FILE)
    errors = read_errors(root / ERRORS_FILE)
    durations_s = read_durations(root / VIDEO_FILE)
    plans: dict[str, Plan] = {}
    made: dict[str, list[Timeline]] = {}
    for split, names in splits.items():
        made[split] = []
        for name in names:
            for known, file in ((recordings, STEPS_FILE), (errors, ERRORS_FILE)):
                if name not in known:
                    raise RecordError(
                        f"{root / SPLIT_FILE}: recording {name!r} of split {split!r} is not in "
                        f"{file}; add its annotation, or take it out of the split."
                    )
            recording = recordings[name]
            recipe = recording.recipe
            if recipe not in plans:
                same = [r for r in recordings.values() if r.recipe == recipe]
                plans[recipe] = make_plan(root, recipe, same)
            join_errors(recording, errors[name], f"{root / ERRORS_FILE}: recording {name!r}")
            made[split].append(_make_timeline(recording, plans[recipe], durations_s.get(name)))
    return made


def _make_timeline(recording: Recording, plan: Plan, duration_s: float | None) -> Timeline:
    rows_of, extra = _assign(recording, plan)
    descriptions = [*plan.descriptions, *map(parse_description, extra)]
    begun = {i: min((r.span[0] for r in rows), default=None) for i, rows in rows_of.items()}
    steps: list[Step] = []
    activities: list[Activity] = []
    for i, description in enumerate(descriptions):
        rows = rows_of[i]
        step_id = f"S{i + 1}"
        mistakes = []
        for row in rows:
            start_s = row.span[0]
            needs = sorted(plan.needs[i]) if i < len(plan.needs) else []
            pending = [n for n in needs if (begun_s := begun[n]) is None or begun_s > start_s]
            first = descriptions[pending[0]] if pending else None
            mistakes += [_mistake(row, tag, text, description, first) for tag, text in row.errors]
        steps.append(
            Step(
                id=step_id,
                name=description.name,
                verb=description.verb,
                item=description.item,
                tool=description.tool,
                start_s=begun[i],
                end_s=max((row.span[1] for row in rows), default=None),
                mistakes=tuple(sorted(mistakes, key=lambda m: m.time_s)),
                needs=plan.ids_needed(i),
            )
        )
        activities += _activities(rows, step_id, description)
    last_s = max((step.end_s for step in steps if step.end_s is not None), default=0.0)
    if duration_s is not None and last_s > duration_s + _ROUNDING_S:
        raise RecordError(
            f"{recording.where}: a step ends at {last_s} s, after the end of the recording at "
            f"{duration_s} s ({VIDEO_FILE}); correct one of them."
        )
    return Timeline(
        dataset="captaincook4d",
        video_uid=recording.name,
        task=f"make {recording.recipe.lower()}",
        duration_s=last_s + _TAIL_S if duration_s is None else max(duration_s, last_s),
        steps=tuple(steps),
        activities=tuple(sorted(activities, key=lambda a: (a.start_s, a.end_s))),
        scene_seed=int.from_bytes(hashlib.blake2b(recording.name.encode(), digest_size=4).digest()),
        metadata=recording.metadata,
    )


def _assign(recording: Recording, plan: Plan) -> tuple[dict[int, list[Row]], list[str]]:
    """Performances of each step by its position, and descriptions of steps beyond the plan."""
    groups: dict[str, list[Row]] = {key: [] for key in plan.keys}
    extra: dict[str, str] = {}
    for row in recording.rows:
        key = normalised(row.description)
        if key not in plan.keys:
            key = plan.key_of_id.get(row.step_id, key)
        if key not in plan.keys:
            extra.setdefault(key, row.description)
        groups.setdefault(key, [])
        if row.start_s is not None:
            groups[key].append(row)
    keys = [*plan.keys, *extra]
    rows_of: dict[int, list[Row]] = {i: [] for i in range(len(keys))}
    for key, rows in groups.items():
        places = [i for i, k in enumerate(keys) if k == key]
        for k, row in enumerate(sorted(rows, key=lambda row: row.span)):
            rows_of[places[min(k, len(places) - 1)]].append(row)
    return rows_of, list(extra.values())


def _shows_at(row: Row, tag: str) -> float:
    start_s, end_s = row.span
    return start_s + SHOWS_AT.get(tag, 0.5) * (end_s - start_s)


def _mistake(
    row: Row, tag: str, text: str, step: Description, first: Description | None
) -> Mistake:
    """What went wrong and what to do: the step as planned, or what should have come before it."""
    text = " ".join(text.split()).rstrip(" .") or tag
    kind = "mistake" if tag == "Other" else tag.lower()
    article = "an" if kind[0] in "aeiou" else "a"
    correction, right = step.name, step
    if tag == "Order Error":
        order = re.match(r"step performed (before|after) (.+)", text, re.IGNORECASE)
        if first is not None:
            correction, right = f"first {first.name}", first
        elif order and order[1].lower() == "before":
            correction = f"finish {order[2]} before you {step.name}"
        elif order:
            correction = f"{step.name} before {order[2]}"
    return Mistake(
        time_s=_shows_at(row, tag),
        kind=tag,
        description=f"{article} {kind}: {text[0].lower()}{text[1:]}",
        correction=correction,
        keywords=tuple(dict.fromkeys((right.verb, right.item))),
    )


def _activities(rows: Sequence[Row], step_id: str, step: Description) -> list[Activity]:
    """Work from nothing to done over all performances, with the mistakes in between."""
    work, mistake = ActivityKind.WORK, ActivityKind.MISTAKE
    pieces: list[tuple[ActivityKind, float, float]] = []
    for row in rows:
        at_s, end_s = row.span
        length_s = _MISTAKE_SHARE * (end_s - at_s)
        for shows_s in sorted({_shows_at(row, tag) for tag, _ in row.errors}):
            until_s = min(shows_s + length_s, end_s)
            pieces += [(work, at_s, shows_s), (mistake, max(at_s, shows_s), until_s)]
            at_s = until_s
        pieces.append((work, at_s, end_s))
    pieces = [(kind, start_s, end_s) for kind, start_s, end_s in pieces if end_s > start_s]
    work_s = sum(end_s - start_s for kind, start_s, end_s in pieces if kind is work)
    activities, done_s = [], 0.0
    for i, (kind, start_s, end_s) in enumerate(pieces):
        before = done_s / work_s
        done_s += end_s - start_s if kind is work else 0.0
        rest = any(later is work for later, _, _ in pieces[i + 1 :])
        after = done_s / work_s if rest else 1.0  # not 0.999.. for the last
        activities.append(
            Activity(
                kind=kind,
                start_s=start_s,
                end_s=end_s,
                step_id=step_id,
                item=step.item,
                tool=step.tool,
                verb=step.verb,
                progress=(before if rest or kind is work else 1.0, after),
            )
        )
    return activities


SOURCE = AnnotatedSource(
    files="CaptainCook4D annotation files, say data.root=captaincook4d/annotations",
    read=read_captaincook4d,
)
