"""The engine on a GPU: the answers of a session there, and those of torch without kernels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.shapes import build, features, recordings, stream
from proassist_lit.streaming.config import ContextSource, Kernels, Strategy, StreamConfig
from proassist_lit.streaming.engine import Engine
from proassist_lit.streaming.evaluate import stream_conversation
from proassist_lit.types import FrameOutput

pytestmark = pytest.mark.gpu

CONFIG = StreamConfig(
    theta_speak=0.5, theta_dst=1.0, max_new_tokens=6, max_dst_tokens=1, strategy=Strategy.NONE,
    reserve=40, max_context=800, kernels=Kernels.COMPILED,
)  # fmt: skip

NUM_FRAMES = 60

DEVICE = torch.device("cuda")


def inputs(k: int) -> list[Tensor]:
    return [features(i, NUM_FRAMES, k, 0.1) for i in range(12)]


class Assistant:
    """A random model on the GPU that fires at marked frames."""

    def __init__(self, dtype: torch.dtype, k: int) -> None:
        self.model, self.chat = build("tiny", device=DEVICE, dtype=dtype)
        self.k, self.inputs = k, inputs(k)

    def by_engine(self, config: StreamConfig, **options: int) -> list[list[FrameOutput]]:
        engine = Engine(self.model, self.chat, config, num_tokens_per_img=self.k, **options)
        streams = [stream(i, NUM_FRAMES) for i in range(len(self.inputs))]
        answered = sorted(engine.run(recordings(streams, self.inputs)), key=lambda one: one.index)
        assert not any(one.error for one in answered)
        return [list(one.frames) for one in answered]

    def by_session(self, config: StreamConfig) -> list[list[FrameOutput]]:
        return [
            list(stream_conversation(
                self.model, self.chat, stream(number, NUM_FRAMES), frames, config
            ).frames)
            for number, frames in enumerate(self.inputs)
        ]  # fmt: skip


def says(answers: list[list[FrameOutput]]) -> list[tuple[bool, str | None]]:
    return [(one.speak, one.text) for stream in answers for one in stream]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"strategy": Strategy.DROP_MIDDLE, "max_context": 150, "window_tokens": 60},
        {"strategy": Strategy.DROP_ALL, "max_context": 150},
    ],
    ids=str,
)
@pytest.mark.parametrize("k", [1, 5])
def test_engine_equals_session(k: int, changes: dict[str, object]) -> None:
    assistant, config = Assistant(torch.float32, k), replace(CONFIG, **changes)
    answers = says(assistant.by_engine(config))
    assert 0.02 < sum(speak for speak, _ in answers) / len(answers) < 0.2
    assert answers == says(assistant.by_session(config))
    assert answers == says(assistant.by_engine(replace(config, kernels=Kernels.TORCH)))


@pytest.mark.parametrize("options", [{"num_slots": 1}, {"num_slots": 5, "max_block": 3}], ids=str)
def test_engine_equals_session_whatever_the_blocks_and_slots(options: dict[str, int]) -> None:
    assistant = Assistant(torch.float32, 1)
    assert says(assistant.by_engine(CONFIG, **options)) == says(assistant.by_session(CONFIG))


def test_bf16_decisions_are_those_of_a_session() -> None:
    """Of a head that knows nothing: many of its decisions are near the threshold."""
    assistant = Assistant(torch.bfloat16, 1)
    with torch.no_grad():
        for weight in assistant.model.speak_head.parameters():
            weight.normal_(std=2.0)
    config = replace(CONFIG, context=ContextSource.REFERENCE, words=False)
    ours, theirs = assistant.by_engine(config), assistant.by_session(config)
    pairs = [(a, b) for one in zip(ours, theirs, strict=True) for a, b in zip(*one, strict=True)]
    near = sum(abs(b.speak_prob - 0.5) < 0.1 for _, b in pairs) / len(pairs)
    assert near > 0.01
    assert sum(a.speak == b.speak for a, b in pairs) / len(pairs) >= 0.999
