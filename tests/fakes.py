"""A tiny random model, a word tokenizer, a three-turn dialogue and random features; no files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

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
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import Decision, HeadType, ModelConfig
from proassist_lit.sequence.chat import FORMATS, Chat
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.decoder import Decoder, make_decoder
from proassist_lit.types import StepState, Transition, Update

torch.set_num_threads(1)  # products of 16 numbers only wait for each other on more

VISION_SIZE = 6
SEPARATOR = "<|sep|>"
WORDS = (
    "please help Steps: S1: S2: S3: wash. peel. fry. wash peel fry (in progress). (completed). "
    "make soup first well done now how many one of two three it is all good wait use the knife pan "
    "S1->start S1->complete S2->start S2->complete S1->complete;S2->start S9->start nonsense "
    "system user model User: assistant dst Please summarize progress. Task knowledge: Okay. "
    "Summary: so far DST Task Overview: Dialogue state: S1 S2 in_progress completed "
    "in_progress, completed,"
)
STEPS = (TaskStep(id="S1", name="wash"), TaskStep(id="S2", name="peel"))
NOT_STARTED = {step.id: StepState.NOT_STARTED for step in STEPS}


class WordTokenizer:
    """One token per word, so that text written from ids always becomes the same ids again."""

    _PIECES = re.compile(r"<\|\w+\|>|<\w+>|\[[A-Z]+\]|\n+|[^\s<]+")

    def __init__(self) -> None:
        special = [token for table in FORMATS.values() for token in table.special_tokens]
        self.special = list(dict.fromkeys(["<image>", *special, SEPARATOR]))
        words = [*self.special, "\n", "\n\n", *dict.fromkeys(WORDS.split())]
        # A round number, so that another word changes no random weights.
        self.words = [*words, *(f"spare{i}" for i in range(len(words), 128))]
        self._ids = {word: i for i, word in enumerate(self.words)}

    @property
    def eos_token(self) -> str:
        return "<|end|>"

    def __len__(self) -> int:
        return len(self.words)

    def encode(
        self, text: str, *, add_special_tokens: bool, split_special_tokens: bool
    ) -> list[int]:
        assert not add_special_tokens
        return [self._ids[piece] for piece in self._PIECES.findall(text)]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return " ".join(self.words[i] for i in ids if self.words[i] not in self.special)


def word_chat(name: str = "compact", *, separator: bool = False) -> Chat:
    table = FORMATS[name]
    return Chat(replace(table, separator=SEPARATOR if separator else ""), WordTokenizer())


class Words:
    """Token ids of given spans, again and again; each ends with the end of turn."""

    def __init__(self, chat: Chat, utterances: Sequence[str], dst: Sequence[str]) -> None:
        def ids(spans: Sequence[str]) -> Iterator[int]:
            for span in itertools.cycle(spans):
                yield from [*chat.encode(span), chat.end_of_turn_id]

        self._utterances, self._dst = ids(utterances), ids(dst)

    def next_id(self, *, dst: bool) -> int:
        return next(self._dst if dst else self._utterances)


class ScriptedModel(AssistantModel):
    """A model whose words are given, whose decisions are its own; it notes what it is fed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.words: Words | None = None  # None: the model's own words
        self.fed: list[Tensor] = []
        self.speak_logits: list[Tensor] = []  # one per reading of the head
        self.dst_logits: list[Tensor] = []
        self.speak_head.register_forward_hook(lambda _m, _i, out: self.speak_logits.append(out))
        if self.dst_head is not None:
            self.dst_head.register_forward_hook(lambda _m, _i, out: self.dst_logits.append(out))

    def noting_decoder(self) -> Decoder:
        """The decoder a session would take, noting what it is fed."""
        decode = make_decoder(self)

        def note(inputs_embeds: Tensor, cache: KVCache) -> Tensor:
            self.fed.append(inputs_embeds[None])
            return decode(inputs_embeds, cache)

        return note

    def lm_logits(self, hidden: Tensor, *, dst: bool = False) -> Tensor:
        logits = super().lm_logits(hidden, dst=dst)
        if self.words is not None:
            logits = torch.zeros_like(logits)
            logits[..., self.words.next_id(dst=dst)] = 1.0
        return logits


def tiny_model(
    seed: int = 2,
    *,
    head: HeadType = HeadType.LINEAR,
    dst: bool = True,
    dst_output_head: bool = False,
    decision: Decision = Decision.HEAD,
    rope: Mapping[str, Any] | None = None,
    chat: Chat | None = None,
    dtype: torch.dtype = torch.float64,
    spread: float = 0.4,
) -> ScriptedModel:
    """Weights are drawn wide, so that decisions differ from frame to frame."""
    config = LlamaConfig(
        vocab_size=len(WordTokenizer()),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        **({"rope_parameters": dict(rope)} if rope else {}),
    )
    model = ScriptedModel(
        LlamaForCausalLM(config),
        vision_size=VISION_SIZE,
        config=ModelConfig(head=head, dst=dst, dst_output_head=dst_output_head, decision=decision),
        chat=chat,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim > 1:
                parameter.normal_(std=spread, generator=generator)
                if name.startswith("projector"):
                    parameter *= 4  # what is seen decides, more than what was said
    return model.to(dtype).eval()


DIALOGUE: tuple[Turn, ...] = (
    SystemTurn(content="please help"),
    UserTurn(content="make soup", time_s=5.0),
    FramesTurn(start=10, end=11),
    AssistantTurn(content="first wash", time_s=5.0, keywords=("wash",)),
    FramesTurn(start=11, end=14),
    DstTurn(updates=(Update("S1", Transition.START),)),
    FramesTurn(start=14, end=15),
    DstTurn(updates=(Update("S1", Transition.COMPLETE),)),
    DstTurn(updates=(Update("S2", Transition.START),)),
    AssistantTurn(content="well done"),
    AssistantTurn(content="now peel", keywords=("peel",)),
    FramesTurn(start=15, end=17),
    UserTurn(content="how many"),
    FramesTurn(start=17, end=18),
    AssistantTurn(content="one of two", keywords=("one",)),
    FramesTurn(start=18, end=19),
    FramesTurn(start=19, end=20),
)
"""Three assistant turns; frames 10 to 19; every kind of frame that there is."""


def dialogue(
    turns: Sequence[Turn] = DIALOGUE,
    *,
    steps: tuple[TaskStep, ...] = STEPS,
    video_uid: str = "video",
    metadata: Mapping[str, Any] | None = None,
) -> Conversation:
    frames = [turn for turn in turns if isinstance(turn, FramesTurn)]
    return Conversation(
        dataset="toy",
        video_uid=video_uid,
        clip_idx=0,
        frames_file=f"frames/{video_uid}",
        fps=2.0,
        num_tokens_per_img=1,
        start_frame_idx=frames[0].start,
        end_frame_idx=frames[-1].end,
        turns=tuple(turns),
        steps=steps,
        initial_state={step.id: StepState.NOT_STARTED for step in steps},
        metadata=metadata or {},
        source="train.jsonl:1",
    )


def random_features(num_frames: int = 10, num_tokens_per_img: int = 1, *, seed: int = 0) -> Tensor:
    """(F, K, E) float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(
        num_frames, num_tokens_per_img, VISION_SIZE, generator=generator, dtype=torch.float64
    )
