"""The rules of sequences, written down a second time and plainly, to compare the builder with."""

from __future__ import annotations

from collections.abc import Sequence
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
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.summary_requests import SUMMARY_QUERY
from proassist_lit.types import IGNORE_INDEX, StepState
from tests.properties.strategies import Case

Piece = tuple[list[int], Role | None]
"""Token ids, and whose loss they bear: the assistant's, the state's, or none."""


@dataclass
class Frame:
    """A frame and everything up to the next one."""

    index: int
    before: list[Piece] = field(default_factory=list)
    after: list[Piece] = field(default_factory=list)
    speak: int = -1
    dst: int = -1

    @property
    def has_span(self) -> bool:
        return bool(self.after)


@dataclass
class Expected:
    """What the builder must write."""

    prefix: list[int]
    frames: list[Frame]
    late: list[Piece]

    def pieces(self, num_frames: int | None = None, *, image: list[int]) -> list[Piece]:
        out: list[Piece] = [(self.prefix, None)]
        for frame in self.frames[:num_frames]:
            out += [*frame.before, (image, None), *frame.after]
        return out if num_frames is not None else out + self.late


def ids(pieces: list[Piece]) -> list[int]:
    return [token for tokens, _ in pieces for token in tokens]


def labels(pieces: list[Piece], role: Role) -> list[int]:
    return [t if whose is role else IGNORE_INDEX for tokens, whose in pieces for t in tokens]


def ask_behind_frames(turns: Sequence[Turn]) -> list[Turn]:
    """``turns`` with requests for a summary moved from before a lone frame to before the answer."""
    rest = list(turns)
    for number, request in enumerate(turns[:-2]):
        lone = turns[number + 1]
        if not (isinstance(request, SystemTurn) and request.content == SUMMARY_QUERY):
            continue
        if not (isinstance(lone, FramesTurn) and lone.end - lone.start == 1):
            continue
        answer = number + 2
        while answer < len(turns) and isinstance(turns[answer], DstTurn):
            answer += 1
        if answer < len(turns) and isinstance(turns[answer], AssistantTurn):
            rest.insert(answer - 1, rest.pop(number))
    return rest


def expect(case: Case) -> Expected:
    """Walk the turns of the case's conversation, one frame at a time."""
    conversation, chat = case.conversation, case.chat
    rest = list(conversation.turns)
    prompt = ""
    if isinstance(rest[0], SystemTurn):
        prompt, rest = rest[0].content, rest[1:]
    rest = ask_behind_frames(rest)
    prefix = list(chat.bos_ids)
    if told := _prompt(conversation, prompt, overview_first=chat.format.overview_first):
        prefix += chat.turn_ids(Role.SYSTEM, told)
    frames: list[Frame] = []
    waiting: list[Piece] = []
    asked = False
    spoken: list[AssistantTurn | DstTurn] = []  # at the last frame
    summaries: set[int] = set()

    def finish(follower: str) -> None:
        """Write what was said at the last frame; ``follower`` is what comes next."""
        nonlocal spoken
        if not frames:
            return
        frame, said = frames[-1], [t for t in spoken if isinstance(t, AssistantTurn)]
        updates = [u for t in spoken if isinstance(t, DstTurn) for u in t.updates]
        if updates:
            frame.after += _span(chat, Role.DST, ";".join(map(str, updates)))
        if said:
            frame.after += _span(chat, Role.ASSISTANT, " ".join(t.content for t in said))
        if said and all(id(turn) in summaries for turn in said):
            pass  # neither
        elif spoken:
            frame.speak, frame.dst = int(bool(said)), int(bool(updates))
        elif follower == "frame" and not conversation.metadata.get("summary_only"):
            frame.speak = frame.dst = 0
        if not conversation.steps:
            frame.dst = -1
        spoken = []

    open_frame = False  # whether a span would belong to the last frame
    for turn in rest:
        match turn:
            case FramesTurn():
                for index in range(turn.start, turn.end):
                    adjoins = open_frame and not spoken
                    if open_frame:
                        finish("frame")
                    frames.append(Frame(index, before=waiting))
                    if adjoins:
                        frames[-1].before = [(chat.separator_ids, None)]
                    waiting, open_frame = [], True
                continue
            case SystemTurn() | UserTurn():
                if open_frame:
                    finish("text")
                open_frame = False
                role = Role.SYSTEM if isinstance(turn, SystemTurn) else Role.USER
                waiting.append((chat.turn_ids(role, turn.content), None))
            case AssistantTurn() | DstTurn():
                if asked and isinstance(turn, AssistantTurn):
                    summaries.add(id(turn))
                if open_frame:
                    spoken.append(turn)
                elif isinstance(turn, AssistantTurn):
                    waiting += _span(chat, Role.ASSISTANT, turn.content)
                else:
                    waiting += _span(chat, Role.DST, ";".join(map(str, turn.updates)))
        asked = isinstance(turn, SystemTurn) and turn.content == SUMMARY_QUERY
    if open_frame:
        finish("end")
    return Expected(prefix, frames, waiting)


def _span(chat, role: Role, text: str) -> list[Piece]:
    opening = role if chat.format.train_openings else None
    return [
        (chat.opening_ids(role), opening),
        ([*chat.encode(text), chat.end_of_turn_id], role),
        (chat.after_turn_ids, None),
    ]


def _prompt(conversation: Conversation, prompt: str, *, overview_first: bool) -> str:
    steps, state = conversation.steps, conversation.initial_state
    if not steps:
        return prompt
    if not overview_first:
        told = " ".join(f"{s.id}: {s.name}{_mark(s, state)}." for s in steps)
        return f"{prompt} Steps: {told}".strip()
    begun = ", ".join(f"{i} {s.value}" for i, s in state.items() if s.value != "not_started")
    lines = ["DST Task Overview:", *(f"{step.id}: {step.name}" for step in steps)]
    lines += [""] * bool(prompt or begun)
    lines += [prompt] * bool(prompt) + [f"Dialogue state: {begun}"] * bool(begun)
    return "\n".join(lines)


def _mark(step: TaskStep, state) -> str:
    now = state[step.id]
    return "" if now is StepState.NOT_STARTED else f" ({now.value.replace('_', ' ')})"
