"""Backbones of known sizes with random weights, and what they are fed."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from proassist_lit.data.conversation import Conversation, FramesTurn, SystemTurn
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import ModelConfig
from proassist_lit.model.tokenizer import train_tokenizer
from proassist_lit.sequence.chat import Chat, chat_format

SHAPES = {
    # hidden, layers, heads, key-value heads, inner, vocabulary
    "tiny": (128, 4, 4, 4, 384, 1536),
    "smollm2": (576, 30, 9, 3, 1536, 49152),
    "1b": (2048, 16, 32, 8, 8192, 128256),
    "8b": (4096, 32, 32, 8, 14336, 128256),
}
"""Sizes of tiny, SmolLM2-135M, Llama-3.2-1B and Llama-3.1-8B."""

VISION_SIZE = 64


def build(shape: str, *, device: torch.device, dtype: torch.dtype) -> tuple[AssistantModel, Chat]:
    """A model of ``shape`` with random weights, in evaluation mode, and its formatter."""
    hidden, layers, heads, kv_heads, inner, vocabulary = SHAPES[shape]
    table = chat_format("compact")
    chat = Chat(table, train_tokenizer(["Watch, and say what to do next."], table, 300))
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
    return model.to(device, dtype).eval(), chat


def stream(number: int, num_frames: int) -> Conversation:
    """A stream with a prompt, in which nobody says anything."""
    return Conversation(
        dataset="toy",
        video_uid=f"stream{number}",
        clip_idx=0,
        frames_file=f"frames/stream{number}",
        fps=2.0,
        num_tokens_per_img=1,
        start_frame_idx=0,
        end_frame_idx=num_frames,
        turns=(
            SystemTurn(content="Watch, and say what to do next."),
            FramesTurn(start=0, end=num_frames),
        ),
    )


def features(number: int, num_frames: int, num_tokens_per_img: int) -> Tensor:
    """(F, K, E) features that change from frame to frame."""
    generator = torch.Generator().manual_seed(number)
    return 4 * torch.randn(num_frames, num_tokens_per_img, VISION_SIZE, generator=generator)


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
