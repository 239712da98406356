"""What really happened in a recording: the truth that dialogues and stand-in frames are made of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from proassist_lit.errors import RecordError


class ActivityKind(StrEnum):
    """What the hands do during an activity."""

    WORK = "work"
    """The right work of a step; it advances the step."""

    FALSE_START = "false_start"
    """An object is brought to the work place and taken away again before any work is done."""

    MISTAKE = "mistake"
    """Work on a wrong object, or with a wrong tool."""

    UNDO = "undo"
    """A mistake is put right."""

    DISTRACTION = "distraction"
    """Motion that has nothing to do with the task."""


@dataclass(frozen=True, kw_only=True)
class Activity:
    """One stretch of what the hands do.

    Attributes:
        kind: what sort of activity.
        start_s: first moment, seconds from the start of the recording.
        end_s: last moment, seconds; after ``start_s``.
        step_id: the step it belongs to; empty for a distraction.
        item: name of the object in the hands; may differ from the step's in a mistake.
        tool: name of the tool in use; empty if none.
        verb: what is done, where object and tool leave it open; empty where they tell.
        progress: (from, to) share of the step's work done over this stretch, in [0, 1].
    """

    kind: ActivityKind
    start_s: float
    end_s: float
    step_id: str = ""
    item: str = ""
    tool: str = ""
    verb: str = ""
    progress: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """Something done wrong, which the assistant should correct when it happens.

    Attributes:
        time_s: when it can first be seen, seconds.
        kind: ``wrong_item``, ``wrong_tool``, or the annotators' own tag.
        description: what was done wrong, in words.
        correction: what to do instead, in words.
        keywords: words that a right correction must hold.
    """

    time_s: float
    kind: str
    description: str
    correction: str
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the task.

    Attributes:
        id: ``S1`` .. ``Sn``, in the order of the plan (not of the doing).
        name: what to do, in the imperative: ``slice carrots with the knife``.
        verb: main verb; a keyword of right instructions.
        item: object worked on; the other keyword.
        tool: tool named by the plan; empty if none.
        start_s: when it began, seconds; None if it was skipped.
        end_s: when it was finished, seconds; None if it was skipped.
        mistakes: what went wrong in it, in order of time.
        needs: ids of all steps that must come before it; None where the plan does not tell.
    """

    id: str
    name: str
    verb: str
    item: str
    tool: str = ""
    start_s: float | None = None
    end_s: float | None = None
    mistakes: tuple[Mistake, ...] = ()
    needs: tuple[str, ...] | None = None

    @property
    def act(self) -> str:
        """Verb and object; the whole name where it has no object of its own."""
        return self.name if self.item == self.verb else f"{self.verb} {self.item}"

    @property
    def skipped(self) -> bool:
        """Whether the step never happened in this recording."""
        return self.start_s is None


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """A recording as it happened. Dialogues and stand-in frames are both made from it.

    Attributes:
        dataset: name of the data set.
        video_uid: unique name of the recording.
        task: the goal in the user's words: ``make a carrot soup``.
        duration_s: length of the recording, seconds.
        steps: every step of the plan, in its order.
        activities: what the hands do, in order of time; feeds the renderer only.
        scene_seed: seed of everything in the picture that carries no meaning (places, colours of
            the table, noise).
        metadata: anything else that the source knows.
    """

    dataset: str
    video_uid: str
    task: str
    duration_s: float
    steps: tuple[Step, ...]
    activities: tuple[Activity, ...] = ()
    scene_seed: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"timeline {self.video_uid!r}"
        if not self.steps:
            raise RecordError(f"{where}: has no steps; a task needs at least one.")
        for step in self.steps:
            if (step.start_s is None) != (step.end_s is None):
                raise RecordError(
                    f"{where}: step {step.id} has start {step.start_s} and end {step.end_s}; give "
                    "both in seconds, or neither for a skipped step."
                )
            if step.start_s is not None and step.end_s is not None and step.end_s < step.start_s:
                raise RecordError(
                    f"{where}: step {step.id} ends at {step.end_s} s, before its start at "
                    f"{step.start_s} s; swap the two times."
                )
            if step.end_s is not None and step.end_s > self.duration_s:
                raise RecordError(
                    f"{where}: step {step.id} ends at {step.end_s} s, after the end of the "
                    f"recording at {self.duration_s} s; correct the step or the duration."
                )

    def performed(self) -> list[Step]:
        """The steps that were not skipped, in the order of their beginnings."""
        return sorted(
            (step for step in self.steps if step.start_s is not None),
            key=lambda step: (step.start_s, step.id),
        )

    def to_json(self) -> str:
        """One line of JSON, from which ``from_json`` makes an equal timeline."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Timeline:
        """Read what ``to_json`` wrote."""
        raw = json.loads(line)
        raw["steps"] = tuple(
            Step(
                **{
                    **step,
                    "mistakes": tuple(
                        Mistake(**{**m, "keywords": tuple(m["keywords"])}) for m in step["mistakes"]
                    ),
                    "needs": None if step.get("needs") is None else tuple(step["needs"]),
                }
            )
            for step in raw["steps"]
        )
        raw["activities"] = tuple(
            Activity(**{**a, "kind": ActivityKind(a["kind"]), "progress": tuple(a["progress"])})
            for a in raw["activities"]
        )
        return cls(**raw)


def event_frame(time_s: float, fps: float) -> int:
    """First frame with ``frame / fps >= time_s``: the assistant speaks after that frame."""
    return max(math.ceil(time_s * fps - 1e-6), 0)
