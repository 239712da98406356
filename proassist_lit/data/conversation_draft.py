"""A conversation while it is written: what happens is noted by its time and stands by its frame."""

from __future__ import annotations

from dataclasses import dataclass, field

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
from proassist_lit.data.dialogue_config import DialogueConfig
from proassist_lit.data.timeline import Step, Timeline, event_frame
from proassist_lit.types import StepState, Transition, Update, apply_updates


@dataclass
class FrameEvents:
    """What happens at one frame, in the order it is written."""

    user: list[UserTurn] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    assistant: list[AssistantTurn] = field(default_factory=list)


class ConversationDraft:
    """Collects the events of a recording, in order of time, until they are a conversation.

    Args:
        timeline: the recording.
        config: frame rate and what the prompt holds.
        user_type: how much the user says, for the record.

    Attributes:
        state: of every step by now.
    """

    state: dict[str, StepState]

    def __init__(self, timeline: Timeline, config: DialogueConfig, user_type: str) -> None:
        self.state = {step.id: StepState.NOT_STARTED for step in timeline.steps}
        self._timeline, self._config, self._user_type = timeline, config, user_type
        self._by_id = {step.id: step for step in timeline.steps}
        self._num_frames = event_frame(timeline.duration_s, config.fps) + 1
        self._events: dict[int, FrameEvents] = {}
        self._earliest_frame = 0

    def user_says(self, time_s: float, text: str) -> None:
        """Let the user say ``text``; after the assistant's words at a frame: before the next one.

        So a quick answer stays behind what it answers, and what follows behind the answer. The
        words that follow on the last frame stand behind it.
        """
        frame = self._spoken_frame(time_s)
        if self._at(frame).assistant:
            frame = self._earliest_frame = frame + 1
        self._at(frame).user.append(UserTurn(content=text, time_s=round(time_s, 2)))

    def update(self, time_s: float, step: Step, transition: Transition) -> None:
        """Let ``step`` begin or end, from now on in ``state``, too."""
        update = Update(step.id, transition)
        self.state, _ = apply_updates(self.state, [update])
        self._at(self._frame(time_s)).updates.append(update)

    def assistant_says(
        self, time_s: float, text: str, labels: str, keywords: tuple[str, ...]
    ) -> None:
        """Let the assistant say ``text``.

        Args:
            time_s: when.
            text: what.
            labels: what kind of utterance.
            keywords: words that matter in it.
        """
        self._at(self._spoken_frame(time_s)).assistant.append(
            AssistantTurn(
                content=text,
                time_s=round(time_s, 2),
                labels=labels,
                progress=self._progress(time_s),
                keywords=keywords,
            )
        )

    def conversation(self, prompt: str) -> Conversation:
        """Everything that was noted, in the order of a record, below the system prompt."""
        timeline, config = self._timeline, self._config
        knowledge = "\n".join(f"{i}. {s.name}" for i, s in enumerate(timeline.steps, start=1))
        turns: list[Turn] = [SystemTurn(content=prompt)]
        if config.knowledge:
            turns.append(SystemTurn(content=f"Task knowledge: {timeline.task}\n{knowledge}"))
        watched = 0
        for frame in sorted(self._events):
            events = self._events[frame]
            before, after = (min(i, self._num_frames) for i in (frame, frame + 1))
            if events.user:
                if before > watched:
                    turns.append(FramesTurn(start=watched, end=before))
                    watched = before
                turns.extend(events.user)
            updates = tuple(events.updates) if config.steps else ()
            if updates or events.assistant:
                if after > watched:
                    turns.append(FramesTurn(start=watched, end=after))
                    watched = after
                if updates:
                    turns.append(DstTurn(updates=updates))
                turns.extend(events.assistant)
        if watched < self._num_frames:
            turns.append(FramesTurn(start=watched, end=self._num_frames))
        steps = tuple(TaskStep(id=s.id, name=s.name) for s in timeline.steps)
        return Conversation(
            dataset=timeline.dataset,
            video_uid=timeline.video_uid,
            clip_idx=0,
            frames_file=f"frames/{timeline.video_uid}",
            fps=config.fps,
            num_tokens_per_img=1,
            start_frame_idx=0,
            end_frame_idx=self._num_frames,
            turns=tuple(turns),
            steps=steps if config.steps else (),
            initial_state={s.id: StepState.NOT_STARTED for s in steps} if config.steps else {},
            metadata={
                **timeline.metadata,
                "user_type": self._user_type,
                "task_goal": timeline.task,
                "knowledge": f"{timeline.task}\n{knowledge}",
                "rendered": True,
            },
        )

    def _at(self, frame: int) -> FrameEvents:
        return self._events.setdefault(frame, FrameEvents())

    def _frame(self, time_s: float) -> int:
        return min(event_frame(time_s, self._config.fps), self._num_frames - 1)

    def _spoken_frame(self, time_s: float) -> int:
        """Frame of words: not before that of a saying that had to wait for the next frame."""
        return max(self._frame(time_s), self._earliest_frame)

    def _progress(self, time_s: float) -> str:
        """Summary of the task so far, for the prompt of a later part."""
        names = {state: [self._by_id[i].name for i, s in self.state.items() if s is state]
                 for state in StepState}  # fmt: skip
        done, doing = names[StepState.COMPLETED], names[StepState.IN_PROGRESS]
        parts = [f"{time_s:.1f} seconds have passed. The user wants to {self._timeline.task}."]
        parts.append(f"Done: {', '.join(done)}." if done else "Nothing is done yet.")
        if doing:
            parts.append(f"Under way: {', '.join(doing)}.")
        return " ".join(parts)
