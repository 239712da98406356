"""Writes the conversation that an ideal assistant would have had over a timeline.

The user states the goal; the assistant instructs, confirms each finished step and gives the next,
corrects a mistake when it happens, answers questions, and is silent otherwise. Every time comes
from the timeline, every word from ``phrases``; the wording is drawn from the seed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from proassist_lit.data import phrases
from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    DstTurn,
    FramesTurn,
    SystemTurn,
    TaskStep,
    Turn,
    UserTurn,
)
from proassist_lit.data.seeding import stable_rng
from proassist_lit.data.timeline import Step, Timeline
from proassist_lit.errors import ConfigError
from proassist_lit.types import StepState, Transition, Update, apply_updates


class UserType(StrEnum):
    """How much the user says, besides the goal."""

    NO_TALK = "no_talk"
    TALK_SOME = "talk_some"
    TALK_MORE = "talk_more"


@dataclass(kw_only=True)
class DialogueConfig:
    """How conversations are written over timelines."""

    fps: float = 2.0
    """Frames per second; > 0."""

    user_types: list[UserType] = field(default_factory=lambda: list(UserType))
    """Training has one conversation per recording and user type, evaluation one per recording."""

    knowledge: bool = False
    """Put the steps into the system prompt as task knowledge, too."""

    steps: bool = True
    """Track the state of the steps (dst)."""

    def __post_init__(self) -> None:
        if not self.fps > 0:
            raise ConfigError(f"data.dialogue.fps must be > 0 frames per second, got {self.fps}.")
        if not self.user_types:
            raise ConfigError(
                "data.dialogue.user_types is empty; name at least one of "
                f"{', '.join(t.value for t in UserType)}."
            )


RECORDED = "recorded"
"""Stands for the user type where words were really said."""

_REMARKS_AND_QUESTIONS = {
    UserType.NO_TALK: (0, 0),
    UserType.TALK_SOME: (1, 1),
    UserType.TALK_MORE: (2, 3),
}
"""Most questions and most remarks of each user type."""

_QUIET_S = 3.5
"""A question keeps this distance from everything else that is said."""


def event_frame(time_s: float, fps: float) -> int:
    """First frame with ``frame / fps >= time_s``: the assistant speaks after that frame."""
    return max(math.ceil(time_s * fps - 1e-6), 0)


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """Words that were really said.

    Attributes:
        time_s: when, seconds from the start of the recording.
        words: what was said.
        by_user: whether the user said it.
    """

    time_s: float
    words: str
    by_user: bool


@dataclass
class _FrameEvents:
    """What happens at one frame, in the order it is written."""

    user: list[UserTurn] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    assistant: list[AssistantTurn] = field(default_factory=list)


def write_dialogue(
    timeline: Timeline, config: DialogueConfig, user_type: UserType, *, seed: int
) -> Conversation:
    """Write one conversation over ``timeline``.

    Args:
        timeline: what happened.
        config: frame rate and what the prompt holds.
        user_type: how much the user says.
        seed: seed of the wording; with the recording and the user type it decides everything.
    """
    most = _REMARKS_AND_QUESTIONS[user_type]
    return _Writer(timeline, config, user_type.value, seed, most).write()


def write_recorded_dialogue(
    timeline: Timeline, config: DialogueConfig, said: Iterable[Utterance], *, seed: int
) -> Conversation:
    """Write the conversation that there really was over ``timeline``; no word is invented.

    Args:
        timeline: what happened.
        config: frame rate and what the prompt holds.
        said: everything that was said.
        seed: seed of the prompt.
    """
    return _Writer(timeline, config, RECORDED, seed).replay(said)


class _Writer:
    def __init__(
        self, timeline: Timeline, config: DialogueConfig, user: str, seed: int,
        most: tuple[int, int] = (0, 0),
    ) -> None:  # fmt: skip
        self.timeline, self.config, self.user = timeline, config, user
        self.max_questions, self.max_remarks = most
        self.rng = stable_rng("dialogue", seed, timeline.video_uid, user)
        self.by_id = {step.id: step for step in timeline.steps}
        self.state: dict[str, StepState] = {s.id: StepState.NOT_STARTED for s in timeline.steps}
        self.num_frames = event_frame(timeline.duration_s, config.fps) + 1
        self.events: dict[int, _FrameEvents] = {}
        self.noticed: set[str] = set()

    def replay(self, said: Iterable[Utterance]) -> Conversation:
        moments: list[tuple[float, int, Step | Utterance]] = [
            (utterance.time_s, 2, utterance) for utterance in said
        ]
        for step in self._performed():
            assert step.start_s is not None
            assert step.end_s is not None
            moments += [(step.start_s, 1, step), (step.end_s, 0, step)]
        # At one time steps end, then begin, then somebody speaks of it.
        for time_s, order, what in sorted(moments, key=lambda m: m[:2]):
            if isinstance(what, Step):
                self._update(time_s, what, Transition.START if order else Transition.COMPLETE)
            elif what.by_user:
                self._user(time_s, what.words)
            else:
                self._assistant(time_s, what.words, RECORDED, ())
        return self._conversation()

    def write(self) -> Conversation:
        performed = self._performed()
        goal_s = self._goal_time(performed)
        self._say_goal(goal_s, performed)
        moments: list[tuple[float, int, str, Step, int]] = []
        for step in performed:
            assert step.start_s is not None
            assert step.end_s is not None
            moments += [(m.time_s, 1, "mistake", step, i) for i, m in enumerate(step.mistakes)]
            moments += [(step.start_s, 2, "start", step, 0), (step.end_s, 0, "end", step, 0)]
        questions = self._question_times(goal_s, [m[0] for m in moments])
        dummy = self.timeline.steps[0]
        moments += [(time_s, 3, "question", dummy, i) for i, time_s in enumerate(questions)]
        for time_s, _, kind, step, index in sorted(moments, key=lambda m: (m[0], m[1], m[4])):
            if kind == "start":
                self._start(time_s, step)
            elif kind == "end":
                self._end(time_s, step, performed)
            elif kind == "mistake":
                self._correct(step, index)
            else:
                self._answer(time_s, index, performed)
        return self._conversation()

    def _performed(self) -> list[Step]:
        """The steps that were not skipped, in the order of their beginnings."""
        return sorted(
            (s for s in self.timeline.steps if s.start_s is not None),
            key=lambda s: (s.start_s, s.id),
        )

    # -- the acts ---------------------------------------------------------------------------

    def _say_goal(self, time_s: float, performed: Sequence[Step]) -> None:
        task = self.timeline.task
        self._user(time_s, self._pick(phrases.GOAL).format(task=task))
        if performed:
            first = performed[0]
            text = self._pick(phrases.FIRST).format(id=first.id, step=first.name)
            self._assistant(time_s, text, "instruction", (first.verb, first.item))

    def _start(self, time_s: float, step: Step) -> None:
        self._update(time_s, step, Transition.START)
        for skipped in self._skipped_before(step):
            self.noticed.add(skipped.id)
            text = self._pick(phrases.SKIPPED).format(step=skipped.name)
            self._assistant(time_s, text, "correction", (skipped.verb, skipped.item))

    def _end(self, time_s: float, step: Step, performed: Sequence[Step]) -> None:
        self._update(time_s, step, Transition.COMPLETE)
        todo = [s for s in performed if self.state[s.id] is StepState.NOT_STARTED]
        if todo:
            text = self._pick(phrases.NEXT).format(
                id=todo[0].id, step=todo[0].name, done=f"{step.verb} {step.item}"
            )
            self._assistant(time_s, text, "feedback,instruction", (todo[0].verb, todo[0].item))
        elif all(self.state[s.id] is StepState.COMPLETED for s in performed):
            text = self._pick(phrases.FINISH).format(task=self.timeline.task)
            self._assistant(time_s, text, "feedback", ())
        else:  # other steps are under way, nothing new begins
            text = self._pick(phrases.GO_ON).format(done=step.name)
            self._assistant(time_s, text, "feedback", (step.verb, step.item))

    def _correct(self, step: Step, index: int) -> None:
        mistake = step.mistakes[index]
        text = self._pick(phrases.CORRECT).format(
            wrong=mistake.description, right=mistake.correction
        )
        self._assistant(mistake.time_s, text, "correction", mistake.keywords)

    def _answer(self, time_s: float, index: int, performed: Sequence[Step]) -> None:
        if index >= self.max_questions:
            self._user(time_s, self._pick(phrases.REMARKS))
            return
        step = self._current(performed)
        kinds = ["item", "tool", "count"] if step and step.tool else ["count"]
        kind = str(self.rng.choice(kinds))
        if kind == "count" or step is None:
            done = sum(state is StepState.COMPLETED for state in self.state.values())
            self._user(time_s, self._pick(phrases.ASK_COUNT))
            text = self._pick(phrases.ANSWER_COUNT).format(count=done, total=len(self.state))
            self._assistant(time_s, text, "answer", (str(done),))
        elif kind == "tool":
            self._user(time_s, self._pick(phrases.ASK_TOOL))
            text = self._pick(phrases.ANSWER_TOOL).format(tool=step.tool)
            self._assistant(time_s, text, "answer", (step.tool,))
        else:
            self._user(time_s, self._pick(phrases.ASK_ITEM))
            text = self._pick(phrases.ANSWER_ITEM).format(item=step.item)
            self._assistant(time_s, text, "answer", (step.item,))

    # -- when and about what ------------------------------------------------------------------

    def _goal_time(self, performed: Sequence[Step]) -> float:
        """A while before anything happens, where the recording leaves room for it."""
        starts = [s.start_s for s in performed if s.start_s is not None]
        starts += [m.time_s for s in performed for m in s.mistakes]
        starts += [a.start_s for a in self.timeline.activities if a.step_id]
        first = min(starts, default=self.timeline.duration_s)
        return max(min(first - float(self.rng.uniform(2.0, 4.5)), first * 0.5), 0.0)

    def _question_times(self, goal_s: float, busy: Sequence[float]) -> list[float]:
        """Times of questions, then of remarks; each away from everything else that is said."""
        max_remarks = self.max_remarks
        num_remarks = int(self.rng.integers(0, max_remarks + 1)) if max_remarks else 0
        taken, found = [goal_s, *busy], list[float]()
        for _ in range(self.max_questions + num_remarks):
            for _attempt in range(20):
                low, high = goal_s + _QUIET_S, self.timeline.duration_s - 2.0
                time_s = float(self.rng.uniform(low, max(high, low + 0.1)))
                if time_s < high and all(abs(time_s - other) >= _QUIET_S for other in taken):
                    taken.append(time_s)
                    found.append(time_s)
                    break
        return found

    def _current(self, performed: Sequence[Step]) -> Step | None:
        """The step under way, else the next one."""
        for wanted in (StepState.IN_PROGRESS, StepState.NOT_STARTED):
            for step in performed:
                if self.state[step.id] is wanted:
                    return step
        return None

    def _skipped_before(self, step: Step) -> list[Step]:
        """Steps of the plan before ``step`` that this recording never does, not yet noticed."""
        before = self.timeline.steps[: self.timeline.steps.index(step)]
        return [s for s in before if s.skipped and s.id not in self.noticed]

    # -- writing ------------------------------------------------------------------------------

    def _pick(self, wordings: Sequence[str]) -> str:
        return wordings[int(self.rng.integers(len(wordings)))]

    def _at(self, time_s: float) -> _FrameEvents:
        frame = min(event_frame(time_s, self.config.fps), self.num_frames - 1)
        return self.events.setdefault(frame, _FrameEvents())

    def _user(self, time_s: float, text: str) -> None:
        self._at(time_s).user.append(UserTurn(content=text, time_s=round(time_s, 2)))

    def _update(self, time_s: float, step: Step, transition: Transition) -> None:
        update = Update(step.id, transition)
        self.state, _ = apply_updates(self.state, [update])
        self._at(time_s).updates.append(update)

    def _assistant(self, time_s: float, text: str, labels: str, keywords: tuple[str, ...]) -> None:
        self._at(time_s).assistant.append(
            AssistantTurn(
                content=text,
                time_s=round(time_s, 2),
                labels=labels,
                progress=self._progress(time_s),
                keywords=keywords,
            )
        )

    def _progress(self, time_s: float) -> str:
        """Summary of the task so far, for the prompt of a later part."""
        names = {state: [self.by_id[i].name for i, s in self.state.items() if s is state]
                 for state in StepState}  # fmt: skip
        done, doing = names[StepState.COMPLETED], names[StepState.IN_PROGRESS]
        parts = [f"{time_s:.1f} seconds have passed. The user wants to {self.timeline.task}."]
        parts.append(f"Done: {', '.join(done)}." if done else "Nothing is done yet.")
        if doing:
            parts.append(f"Under way: {', '.join(doing)}.")
        return " ".join(parts)

    def _conversation(self) -> Conversation:
        timeline, config = self.timeline, self.config
        knowledge = "\n".join(f"{i}. {s.name}" for i, s in enumerate(timeline.steps, start=1))
        turns: list[Turn] = [SystemTurn(content=self._pick(phrases.SYSTEM_PROMPTS))]
        if config.knowledge:
            turns.append(SystemTurn(content=f"Task knowledge: {timeline.task}\n{knowledge}"))
        watched = 0
        for frame in sorted(self.events):
            events = self.events[frame]
            if events.user:
                if frame > watched:
                    turns.append(FramesTurn(start=watched, end=frame))
                    watched = frame
                turns.extend(events.user)
            if events.updates or events.assistant:
                turns.append(FramesTurn(start=watched, end=frame + 1))
                watched = frame + 1
                if events.updates and config.steps:
                    turns.append(DstTurn(updates=tuple(events.updates)))
                turns.extend(events.assistant)
        if watched < self.num_frames:
            turns.append(FramesTurn(start=watched, end=self.num_frames))
        steps = tuple(TaskStep(id=s.id, name=s.label or s.name) for s in timeline.steps)
        return Conversation(
            dataset=timeline.dataset,
            video_uid=timeline.video_uid,
            clip_idx=0,
            frames_file=f"frames/{timeline.video_uid}",
            fps=config.fps,
            num_tokens_per_img=1,
            start_frame_idx=0,
            end_frame_idx=self.num_frames,
            turns=tuple(turns),
            steps=steps if config.steps else (),
            initial_state={s.id: StepState.NOT_STARTED for s in steps} if config.steps else {},
            metadata={
                **timeline.metadata,
                "user_type": self.user,
                "task_goal": timeline.task,
                "knowledge": f"{timeline.task}\n{knowledge}",
                "rendered": True,
            },
        )


def write_dialogues(
    timelines: Sequence[Timeline], config: DialogueConfig, *, seed: int, every_type: bool
) -> list[Conversation]:
    """Write the conversations of many recordings.

    Args:
        timelines: the recordings.
        config: how conversations are written.
        seed: seed of the wording.
        every_type: one conversation per recording and user type (training); otherwise one per
            recording, the user types taking turns (evaluation: each stream another recording).
    """
    types = config.user_types
    return [
        write_dialogue(timeline, config, user_type, seed=seed)
        for index, timeline in enumerate(timelines)
        for user_type in (types if every_type else [types[index % len(types)]])
    ]


def utterance_intervals_s(conversations: Sequence[Conversation]) -> np.ndarray:
    """(n,) float64 seconds between utterances that follow each other, over all conversations."""
    gaps: list[float] = []
    for conversation in conversations:
        times = [t.time_s for t in conversation.turns if isinstance(t, AssistantTurn)]
        known = [t for t in times if t is not None]
        gaps += [b - a for a, b in itertools.pairwise(known)]
    return np.array(gaps)
