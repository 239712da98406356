"""Backbones of known sizes with random weights, and what they are fed."""

from __future__ import annotations

import argparse
import os
import platform
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    FramesTurn,
    SystemTurn,
    Turn,
)
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import ModelConfig
from proassist_lit.model.tokenizer import train_tokenizer
from proassist_lit.sequence.chat import Chat, chat_format
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.config import Kernels, Strategy, StreamConfig
from proassist_lit.streaming.recording import Recording

SHAPES = {
    # hidden, layers, heads, key-value heads, inner, vocabulary
    "tiny": (128, 4, 4, 4, 384, 1536),
    "smollm2": (576, 30, 9, 3, 1536, 49152),
    "1b": (2048, 16, 32, 8, 8192, 128256),
    "8b": (4096, 32, 32, 8, 14336, 128256),
}
"""Sizes of tiny, SmolLM2-135M, Llama-3.2-1B and Llama-3.1-8B."""

VISION_SIZE = 64

MARK = 40.0
"""First feature of a frame that fires; minus this for one that does not."""


class NumberChat(Chat):
    """Shows ids instead of text.

    A random model takes words of a large vocabulary, which the small tokenizer does not have, and
    answers are to be compared.
    """

    def decode(self, ids: list[int]) -> str:
        """The ids."""
        return " ".join(str(i) for i in ids)


def build(shape: str, *, device: torch.device, dtype: torch.dtype) -> tuple[AssistantModel, Chat]:
    """A model of ``shape`` with random weights, in evaluation mode, and its formatter."""
    hidden, layers, heads, kv_heads, inner, vocabulary = SHAPES[shape]
    table = chat_format("compact")
    chat = NumberChat(table, train_tokenizer(["Watch, and say what to do next."], table, 300))
    torch.manual_seed(0)
    with torch.device(device):
        lm = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=kv_heads,
                intermediate_size=inner,
                vocab_size=vocabulary,
                max_position_embeddings=131072,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=None,
                dtype=dtype,
            )
        ).to(dtype)
        model = AssistantModel(
            lm, vision_size=VISION_SIZE, config=ModelConfig(dst=False), chat=chat
        )
    model = model.to(device, dtype).eval()
    let_marks_decide(model)
    return model, chat


@torch.no_grad()
def let_marks_decide(model: AssistantModel) -> None:
    """Let the speak head tell frames whose first feature is ``MARK`` from those with ``-MARK``.

    A random head fires in bursts, and in some streams all the time; with marks the share of frames
    that fire, and how irregularly they do, can be set. Everything is computed all the same.
    """
    pair = torch.zeros(2, VISION_SIZE, device=model.device)
    pair[:, 0] = torch.tensor([MARK, -MARK])
    marked, plain = model.project(pair)
    direction = (marked - plain).float()
    linear = next(m for m in model.speak_head.modules() if isinstance(m, nn.Linear))
    linear.weight.copy_(4 * direction / direction.norm() / len(direction) ** 0.5)
    assert linear.bias is not None
    linear.bias.zero_()


def stream(
    number: int, num_frames: int, spoken: Sequence[int] = (), words: int = 0
) -> Conversation:
    """A stream with a prompt; its reference says ``words`` tokens after the frames ``spoken``."""
    rng, turns, start = random.Random(number), list[Turn](), 0
    for frame in spoken:
        turns.append(FramesTurn(start=start, end=frame + 1))
        turns.append(AssistantTurn(content="".join(rng.choices("0123456789", k=words))))
        start = frame + 1
    if start < num_frames:
        turns.append(FramesTurn(start=start, end=num_frames))
    return Conversation(
        dataset="toy",
        video_uid=f"stream{number}",
        clip_idx=0,
        frames_file=f"frames/stream{number}",
        fps=2.0,
        num_tokens_per_img=1,
        start_frame_idx=0,
        end_frame_idx=num_frames,
        turns=(SystemTurn(content="Watch, and say what to do next."), *turns),
    )


def recordings(streams: Sequence[Conversation], inputs: Sequence[Tensor]) -> list[Recording]:
    """What an engine is given."""
    return [
        Recording(name=one.id, script=read_script(one), features=lambda f=f: f, fps=one.fps)
        for one, f in zip(streams, inputs, strict=True)
    ]


def features(number: int, num_frames: int, num_tokens_per_img: int, speak: float = 0.0) -> Tensor:
    """(F, K, E) features that change from frame to frame; a share of them, drawn, is marked."""
    generator = torch.Generator().manual_seed(number)
    out = torch.randn(num_frames, num_tokens_per_img, VISION_SIZE, generator=generator)
    marked = torch.rand(num_frames, generator=generator) < speak
    out[:, -1, 0] = torch.where(marked, MARK, -MARK)
    return out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, on what, and how much it says."""
    parser.add_argument("--shape", choices=sorted(SHAPES), default="smollm2")
    parser.add_argument("--words", type=int, default=20, help="tokens of an utterance")
    parser.add_argument("--tokens", type=int, default=1, help="tokens per frame, K")
    parser.add_argument("--kernels", choices=list(Kernels), default=Kernels.AUTO)
    parser.add_argument("--kv-gib", type=float, default=8.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--quick", action="store_true", help="a small shape, under a minute")


def stream_config(options: argparse.Namespace, most_utterances: int) -> StreamConfig:
    """Settings with room for so many utterances in a stream; nothing is ever forgotten."""
    reserve = options.words + options.tokens + 16
    longest = 40 + options.frames * options.tokens + most_utterances * (options.words + 4)
    return StreamConfig(
        theta_speak=0.5, theta_dst=1.0, max_new_tokens=options.words, max_dst_tokens=1,
        strategy=Strategy.NONE, reserve=reserve, max_context=longest + reserve,
        kv_gib=options.kv_gib, kernels=Kernels(options.kernels),
    )  # fmt: skip


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that the clock sees all of its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "device": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
