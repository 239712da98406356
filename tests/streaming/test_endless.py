"""Streams without an end: every frame is answered, and memory stays what it was."""

from __future__ import annotations

import gc
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import LlamaConfig, LlamaForCausalLM

from proassist_lit.data.conversation import FramesTurn, SystemTurn
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import ModelConfig
from proassist_lit.sequence.script import Script, read_script
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.streaming.decoder import make_decoder
from proassist_lit.streaming.engine import Engine
from proassist_lit.streaming.recording import Recording
from proassist_lit.streaming.session import Session
from proassist_lit.types import FrameOutput
from tests.fakes import VISION_SIZE, WordTokenizer, dialogue, word_chat

CHAT = word_chat()
STRATEGIES = [Strategy.DROP_MIDDLE, Strategy.DST_REFRESH]
CUTTING = [strategy for strategy in Strategy if strategy is not Strategy.NONE]
MAX_CONTEXT = 512
SLACK_MIB = 4.0
"""What a process may take more without anything of the stream being kept: allocators' whims."""

SLACK_BLOCKS = 500
"""Small Python objects that come and go; one kept per frame would be thousands."""

SLACK_IN_FLIGHT = 2**16
"""Bytes of what an engine is at work on; a row of hidden states per frame would be a million."""

TENSORS = {Tensor, Parameter}


def smallest_model() -> AssistantModel:
    """One layer, 16 wide, float32; weights so wide that decisions differ from frame to frame."""
    torch.manual_seed(3)
    lm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WordTokenizer()), hidden_size=16, intermediate_size=16,
            num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
            max_position_embeddings=4096, tie_word_embeddings=True, bos_token_id=None,
            eos_token_id=None,
        )
    )  # fmt: skip
    model = AssistantModel(lm, vision_size=VISION_SIZE, config=ModelConfig(), chat=CHAT)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.4)
    return model.eval()


def script(num_frames: int) -> Script:
    turns = (SystemTurn(content="please help"), FramesTurn(start=0, end=num_frames))
    return read_script(dialogue(turns))


def pictures(num_frames: int) -> Tensor:
    """(F, 1, E) features."""
    generator = torch.Generator().manual_seed(5)
    return 4 * torch.randn(num_frames, 1, VISION_SIZE, generator=generator)


def settings(model: AssistantModel, strategy: Strategy, share: float = 0.04) -> StreamConfig:
    """Thresholds that about ``share`` of the frames reach, in a small context."""
    limits = {
        "strategy": strategy, "max_context": MAX_CONTEXT, "reserve": 32, "window_tokens": 200,
        "max_new_tokens": 6, "max_dst_tokens": 4, "max_summary_tokens": 8,
    }  # fmt: skip
    if strategy is Strategy.SUMMARIZE:
        limits["reserve"] = 48
    silent = StreamConfig(theta_speak=1.0, theta_dst=1.0, **limits)
    probe = Session(model, CHAT, script(1), silent, fps=2.0, num_tokens_per_img=1)
    outputs = [probe.step(frame) for frame in pictures(400)]
    speak = torch.tensor([output.speak_prob for output in outputs]).quantile(1 - share)
    dst = torch.tensor([output.dst_prob for output in outputs]).quantile(1 - share)
    return StreamConfig(theta_speak=float(speak), theta_dst=float(dst), **limits)


@dataclass(frozen=True)
class Memory:
    """What a process holds at some frame."""

    tensor_bytes: int  # allocated for tensors, caches among them, whether or not they are full
    blocks: int  # small Python objects
    rss_mib: float

    @classmethod
    def now(cls) -> Memory:
        gc.collect()
        # Packed weights have no storage to ask; they are made once.
        tensors = [o for o in gc.get_objects() if type(o) in TENSORS and not o.is_mkldnn]
        storages = {
            storage.data_ptr(): storage.nbytes()
            for storage in (tensor.untyped_storage() for tensor in tensors)
        }
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        rss = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        return cls(sum(storages.values()), sys.getallocatedblocks(), rss)


class Watcher:
    """Checks the answers of a stream as they come, and keeps none of them."""

    def __init__(self) -> None:
        self.num_frames = self.num_spoken = self.num_updates = self.num_events = 0

    def see(self, output: FrameOutput, strategy: Strategy) -> None:
        assert output.frame_idx == self.num_frames
        assert output.context_len <= MAX_CONTEXT
        assert 0.0 <= output.speak_prob <= 1.0
        assert output.dst_prob is not None
        assert 0.0 <= output.dst_prob <= 1.0
        assert output.event in (None, strategy.value)
        self.num_frames += 1
        self.num_spoken += output.speak
        self.num_updates += output.dst
        self.num_events += output.event is not None

    def check(self, num_frames: int) -> None:
        """Enough of everything happened that could leave something behind."""
        assert self.num_frames == num_frames
        for number in (self.num_spoken, self.num_updates):
            assert 0.02 <= number / num_frames <= 0.1
        assert self.num_events >= num_frames / MAX_CONTEXT


class NotingDecoder:
    """The decoder of a session; notes how long the cache was at most, and its room for tokens."""

    def __init__(self, model: AssistantModel) -> None:
        self._decode = make_decoder(model)
        self.longest, self.room = 0, 0

    def __call__(self, inputs_embeds: Tensor, cache: KVCache) -> Tensor:
        hidden = self._decode(inputs_embeds, cache)
        self.longest = max(self.longest, len(cache))
        self.room = max(self.room, cache.layers[0].keys.shape[2])
        return hidden


def session_memory(strategy: Strategy, num_frames: int, every: int) -> list[Memory]:
    """Watch ``num_frames`` frames; what is held after each ``every`` of them."""
    model = smallest_model()
    decoder = NotingDecoder(model)
    session = Session(
        model, CHAT, script(1), settings(model, strategy), fps=2.0, num_tokens_per_img=1,
        decoder=decoder,
    )  # fmt: skip
    frames, watcher, held = pictures(997), Watcher(), []
    for number in range(num_frames):
        text = "how many" if number % 101 == 100 else ""
        watcher.see(session.step(frames[number % len(frames)], text), strategy)
        if (number + 1) % every == 0:
            held.append(Memory.now())
    watcher.check(num_frames)
    assert decoder.longest <= MAX_CONTEXT
    assert decoder.room <= 2 * MAX_CONTEXT  # it doubles
    return held


def assert_flat(held: list[Memory]) -> None:
    """From the first of them on, long after the context was first full, nothing grows."""
    first = held[0]
    assert len({memory.tensor_bytes for memory in held}) == 1
    assert max(memory.blocks for memory in held) - first.blocks <= SLACK_BLOCKS
    assert max(memory.rss_mib for memory in held) - first.rss_mib <= SLACK_MIB


@pytest.mark.road
@pytest.mark.parametrize("strategy", CUTTING)
def test_a_session_goes_on_in_the_same_memory(strategy: Strategy) -> None:
    assert_flat(session_memory(strategy, num_frames=3000, every=1000))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_session_goes_on_for_100_000_frames(strategy: Strategy) -> None:
    assert_flat(session_memory(strategy, num_frames=100_000, every=10_000))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_engine_keeps_nothing_of_a_long_stream_but_its_answers(strategy: Strategy) -> None:
    model, num_frames, every = smallest_model(), 20_000, 2000
    features = pictures(num_frames)
    recording = Recording(
        name="endless", script=script(num_frames), features=lambda: features, fps=2.0
    )
    engine = Engine(model, CHAT, settings(model, strategy), num_tokens_per_img=1)
    held: list[tuple[int, Memory]] = []  # after so many frames
    num_answered = 0

    def note(count: int) -> None:
        nonlocal num_answered
        num_answered += count
        if num_answered >= every * (len(held) + 1):
            held.append((num_answered, Memory.now()))

    [answered] = engine.run([recording], on_frames=note)

    assert answered.error is None
    watcher = Watcher()
    for output in answered.frames:
        watcher.see(output, strategy)
    watcher.check(num_frames)
    # The answers are what an engine is for: what they take is known once they are gone.
    full = Memory.now()
    weight_mib = sum(map(weight, answered.frames)) / 2**20
    del answered, output
    blocks_per_frame = (full.blocks - Memory.now().blocks) / num_frames
    (start, first), (end, last) = held[0], held[-1]
    assert last.tensor_bytes - first.tensor_bytes <= SLACK_IN_FLIGHT
    # Some answers are longer than others; an object more per frame would be a tenth.
    assert last.blocks - first.blocks <= 1.05 * blocks_per_frame * (end - start)
    assert last.rss_mib - first.rss_mib - weight_mib * (end - start) / num_frames <= SLACK_MIB


def weight(output: FrameOutput) -> int:
    """Bytes of an answer and of what it refers to, at most: some of it is shared."""
    return sum(map(sys.getsizeof, (output, vars(output), *vars(output).values())))
