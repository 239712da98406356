"""Random conversations: any legal order of turns, in every chat format."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import settings
from hypothesis import strategies as st

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
from proassist_lit.sequence.builder import build_sequence
from proassist_lit.sequence.chat import FORMATS, Chat, chat_format
from proassist_lit.sequence.ground_truth import relevance_labels
from proassist_lit.sequence.script import KNOWLEDGE, read_script
from proassist_lit.sequence.summary_requests import SUMMARY_QUERY
from proassist_lit.types import StepState, Transition, Update
from tests.fakes import SEPARATOR, WordTokenizer

PROFILE = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def examples(number: int) -> settings:
    """Settings of a property that is tried ``number`` times, more often by a wider profile."""
    return settings(PROFILE, max_examples=number * PROFILE.max_examples // 100)


class AnyWordTokenizer(WordTokenizer):
    """Has an id for every word: that of another word for one it does not know."""

    def encode(
        self, text: str, *, add_special_tokens: bool, split_special_tokens: bool
    ) -> list[int]:
        assert not add_special_tokens
        if split_special_tokens:
            return [self._plain(word) for word in re.findall(r"\n+|\S+", text)]
        return [self._ids.get(piece, self._plain(piece)) for piece in self._PIECES.findall(text)]

    def _plain(self, word: str) -> int:
        """An id that is no special token's, whatever the word looks like."""
        if word in self._ids and word not in self.special:
            return self._ids[word]
        first = len(self.special)
        return first + zlib.crc32(word.encode()) % (len(self.words) - first)


TOKENIZER = AnyWordTokenizer()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A conversation and how it is written."""

    conversation: Conversation
    chat: Chat
    num_tokens_per_img: int

    def build(self, max_seq_len: int = 10**9, *, relevance: bool = False):
        script = read_script(self.conversation)
        return build_sequence(
            script,
            self.chat,
            num_tokens_per_img=self.num_tokens_per_img,
            max_seq_len=max_seq_len,
            relevance=relevance_labels(script) if relevance else None,
        )


WORD = st.sampled_from(
    [
        "wash",
        "peel",
        "fry",
        "first",
        "well",
        "done",
        "now",
        "two",
        "three",
        "good",
        "wait",
        "knife",
        "pan",
        "<image>",
        "<|end|>",
        "[ASST]",
    ]
)
SAID = st.lists(WORD, min_size=1, max_size=4).map(" ".join)
SUMMARY = st.lists(WORD, min_size=1, max_size=6).map(" ".join)
PROGRESS = st.none() | st.just("") | SUMMARY | SUMMARY
SYSTEM = SAID | SAID.map(lambda words: f"{KNOWLEDGE} {words}")
STEP_NAMES = ("wash", "peel", "fry")


def updates(steps: Sequence[TaskStep]) -> st.SearchStrategy[tuple[Update, ...]]:
    """Any updates of these steps, also those that change nothing."""
    one = st.builds(
        Update, st.sampled_from([step.id for step in steps]), st.sampled_from(list(Transition))
    )
    return st.lists(one, min_size=1, max_size=3).map(tuple)


@st.composite
def turns(
    draw: st.DrawFn, steps: Sequence[TaskStep], start: int, min_turns: int, max_turns: int
) -> list[Turn]:
    """Turns in any order that ``data.records`` accepts; frame ``start`` is the first."""
    roles = ["frames", "frames", "frames", "assistant", "assistant", "user", "system", "summary"]
    chosen = draw(
        st.lists(
            st.sampled_from(roles + ["dst"] * 2 * bool(steps)),
            min_size=min_turns,
            max_size=max_turns,
        )
    )
    if "frames" not in chosen:
        chosen.append("frames")
    made: list[Turn] = []
    watched = start
    if draw(st.booleans()):
        made.append(SystemTurn(content=draw(SYSTEM)))
    for number, role in enumerate(chosen):
        extra = {"number": number}
        if role == "frames":
            end = watched + draw(st.integers(1, 5))
            made.append(FramesTurn(start=watched, end=end))
            watched = end
        elif role == "dst" and watched > start:
            made.append(DstTurn(updates=draw(updates(steps)), extra=extra))
        elif role == "user":
            made.append(UserTurn(content=draw(SAID), extra=extra))
        elif role == "system":
            made.append(SystemTurn(content=draw(SYSTEM), extra=extra))
        elif role in ("assistant", "summary"):
            if role == "summary":
                made.append(SystemTurn(content=SUMMARY_QUERY))
                if draw(st.booleans()):  # asked before the frame, or answered without one
                    made.append(FramesTurn(start=watched, end=watched + 1))
                    watched += 1
            made.append(
                AssistantTurn(
                    content=draw(SAID),
                    progress=draw(PROGRESS),
                    keywords=("wash",) if draw(st.booleans()) else (),
                    extra=extra,
                )
            )
    return made


@st.composite
def conversations(
    draw: st.DrawFn, *, min_turns: int = 1, max_turns: int = 14, steps: bool | None = None
) -> Conversation:
    """One record. ``steps``: whether its state is tracked, None for either."""
    num_steps = draw(st.integers(1, 3)) if steps else 0
    if steps is None:
        num_steps = draw(st.integers(0, 3))
    listed = tuple(TaskStep(id=f"S{i + 1}", name=STEP_NAMES[i]) for i in range(num_steps))
    start = draw(st.sampled_from([0, 0, 7]))
    made = draw(turns(listed, start, min_turns, max_turns))
    return Conversation(
        dataset="toy",
        video_uid=draw(st.sampled_from(["video", "other"])),
        clip_idx=0,
        frames_file="frames/video",
        fps=2.0,
        num_tokens_per_img=1,
        start_frame_idx=start,
        end_frame_idx=max(turn.end for turn in made if isinstance(turn, FramesTurn)),
        turns=tuple(made),
        steps=listed,
        initial_state={step.id: draw(st.sampled_from(list(StepState))) for step in listed},
        metadata={"summary_only": True} if draw(st.integers(0, 9)) == 0 else {},
        source="train.jsonl:1",
    )


CHATS = {
    (name, separator): Chat(
        replace(chat_format(name), separator=separator),
        TOKENIZER,
    )
    for name in FORMATS
    for separator in ("", SEPARATOR, "EOS")
}


def cases(
    *,
    min_turns: int = 1,
    max_turns: int = 14,
    steps: bool | None = None,
    tokens: Sequence[int] = (1, 5, 10),
    formats: Sequence[str] = tuple(FORMATS),
) -> st.SearchStrategy[Case]:
    """A conversation in any of ``formats``, with or without separator, K one of ``tokens``."""
    return st.builds(
        Case,
        conversation=conversations(min_turns=min_turns, max_turns=max_turns, steps=steps),
        chat=st.sampled_from([chat for (name, _), chat in CHATS.items() if name in formats]),
        num_tokens_per_img=st.sampled_from(list(tokens)),
    )
