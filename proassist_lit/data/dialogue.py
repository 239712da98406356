"""Writes the conversation that an ideal assistant would have had over a timeline.

The user states the goal; the assistant instructs, confirms each finished step and gives the next,
corrects a mistake when it happens, reminds of a step when one begins that comes after it, answers
questions, and is silent otherwise. Every time comes from the timeline, every word from ``phrases``;
the wording is drawn from the seed.

The next step is the first of the plan that has not begun, whatever the user then does: what is
still to come nobody can see. Were the step that follows announced, its start could be tracked
without a look at it, and a model's own guesses would lead its state astray.
"""

from __future__ import annotations

from collections.abc import Sequence

from proassist_lit.data import phrases
from proassist_lit.data.conversation import Conversation
from proassist_lit.data.conversation_draft import ConversationDraft
from proassist_lit.data.dialogue_config import DialogueConfig, UserType
from proassist_lit.data.seeding import stable_rng
from proassist_lit.data.timeline import Step, Timeline
from proassist_lit.types import StepState, Transition

_QUESTIONS_AND_REMARKS = {
    UserType.NO_TALK: (0, 0),
    UserType.TALK_SOME: (1, 1),
    UserType.TALK_MORE: (2, 3),
}
"""Most questions and most remarks of each user type."""

_QUIET_S = 3.5
"""A question keeps this distance from everything else that is said."""


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
    return _Writer(timeline, config, user_type, seed).write()


class _Writer:
    def __init__(
        self, timeline: Timeline, config: DialogueConfig, user_type: UserType, seed: int
    ) -> None:
        self.timeline = timeline
        self.max_questions, self.max_remarks = _QUESTIONS_AND_REMARKS[user_type]
        self.rng = stable_rng("dialogue", seed, timeline.video_uid, user_type.value)
        self.draft = ConversationDraft(timeline, config, user_type.value)
        self.noticed: set[str] = set()

    def write(self) -> Conversation:
        performed = self.timeline.performed()
        goal_s = self._goal_time(performed)
        self._say_goal(goal_s, performed)
        moments: list[tuple[float, int, str, Step, int]] = []
        for step in performed:
            assert step.start_s is not None
            assert step.end_s is not None
            moments += [(m.time_s, 1, "mistake", step, i) for i, m in enumerate(step.mistakes)]
            end_order = 0 if step.end_s > step.start_s else 2  # a step begins before it ends
            moments += [
                (step.start_s, 2, "start", step, 0),
                (step.end_s, end_order, "end", step, 0),
            ]
        questions = self._question_times(goal_s, [m[0] for m in moments])
        dummy = self.timeline.steps[0]
        moments += [(time_s, 3, "question", dummy, i) for i, time_s in enumerate(questions)]
        for time_s, _, kind, step, index in sorted(moments, key=lambda m: (m[0], m[1], m[4])):
            if kind == "start":
                self._start(time_s, step)
            elif kind == "end":
                self._end(time_s, step)
            elif kind == "mistake":
                self._correct(step, index)
            else:
                self._answer(time_s, index, performed)
        return self.draft.conversation(self._pick(phrases.SYSTEM_PROMPTS))

    # -- the acts ---------------------------------------------------------------------------

    def _say_goal(self, time_s: float, performed: Sequence[Step]) -> None:
        task = self.timeline.task
        self.draft.user_says(time_s, self._pick(phrases.GOAL).format(task=task))
        if performed:
            first = self.timeline.steps[0]
            text = self._pick(phrases.FIRST).format(id=first.id, step=first.name)
            self.draft.assistant_says(time_s, text, "instruction", (first.verb, first.item))

    def _start(self, time_s: float, step: Step) -> None:
        self.draft.update(time_s, step, Transition.START)
        for skipped in self._skipped_before(step):
            self.noticed.add(skipped.id)
            if any(skipped.name in mistake.correction for mistake in step.mistakes):
                continue  # a correction will tell it in a moment
            text = self._pick(phrases.SKIPPED).format(step=skipped.name)
            self.draft.assistant_says(time_s, text, "correction", (skipped.verb, skipped.item))

    def _end(self, time_s: float, step: Step) -> None:
        self.draft.update(time_s, step, Transition.COMPLETE)
        following = self._next()
        if following:
            text = self._pick(phrases.NEXT).format(
                id=following.id, step=following.name, done=step.act
            )
            self.draft.assistant_says(
                time_s, text, "feedback,instruction", (following.verb, following.item)
            )
        elif StepState.IN_PROGRESS not in self.draft.state.values():
            text = self._pick(phrases.FINISH).format(task=self.timeline.task)
            self.draft.assistant_says(time_s, text, "feedback", ())
        else:  # other steps are under way, nothing new begins
            text = self._pick(phrases.GO_ON).format(done=step.name)
            self.draft.assistant_says(time_s, text, "feedback", (step.verb, step.item))

    def _correct(self, step: Step, index: int) -> None:
        mistake = step.mistakes[index]
        text = self._pick(phrases.CORRECT).format(
            wrong=mistake.description, right=mistake.correction
        )
        self.draft.assistant_says(mistake.time_s, text, "correction", mistake.keywords)

    def _answer(self, time_s: float, index: int, performed: Sequence[Step]) -> None:
        if index >= self.max_questions:
            self.draft.user_says(time_s, self._pick(phrases.REMARKS))
            return
        step = self._current(performed)
        kinds = ["item", "tool", "count"] if step and step.tool else ["count"]
        kind = str(self.rng.choice(kinds))
        if kind == "count" or step is None:
            done = sum(state is StepState.COMPLETED for state in self.draft.state.values())
            self.draft.user_says(time_s, self._pick(phrases.ASK_COUNT))
            text = self._pick(phrases.ANSWER_COUNT).format(count=done, total=len(self.draft.state))
            self.draft.assistant_says(time_s, text, "answer", (str(done),))
        elif kind == "tool":
            self.draft.user_says(time_s, self._pick(phrases.ASK_TOOL))
            text = self._pick(phrases.ANSWER_TOOL).format(tool=step.tool)
            self.draft.assistant_says(time_s, text, "answer", (step.tool,))
        else:
            self.draft.user_says(time_s, self._pick(phrases.ASK_ITEM))
            text = self._pick(phrases.ANSWER_ITEM).format(item=step.item)
            self.draft.assistant_says(time_s, text, "answer", (step.item,))

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
        under_way = (s for s in performed if self.draft.state[s.id] is StepState.IN_PROGRESS)
        return next(under_way, None) or self._next()

    def _next(self) -> Step | None:
        """The first step of the plan that has not begun; those just reminded of come last."""
        waiting = [
            s for s in self.timeline.steps if self.draft.state[s.id] is StepState.NOT_STARTED
        ]
        return next((s for s in waiting if s.id not in self.noticed), next(iter(waiting), None))

    def _skipped_before(self, step: Step) -> list[Step]:
        """Steps that should have begun before ``step`` and have not, not yet noticed.

        Those that it needs, whether they are done later or not: nobody can know. Where a plan does
        not tell what a step needs, its order is no obligation: then those that stand before it and
        are never done.
        """
        assert step.start_s is not None
        steps = self.timeline.steps
        if step.needs is not None:
            needed = [s for s in steps if s.id in step.needs]
        elif all(s.needs is None for s in steps):
            needed = [s for s in steps[: steps.index(step)] if s.skipped]
        else:  # beyond the plan
            needed = []
        return [
            s
            for s in needed
            if s.id not in self.noticed and (s.start_s is None or s.start_s > step.start_s)
        ]

    def _pick(self, wordings: Sequence[str]) -> str:
        return phrases.pick(wordings, self.rng)


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
