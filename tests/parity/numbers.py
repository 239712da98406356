"""Numbers that the reference's own code made, and our objects built from their settings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    FramesTurn,
    SystemTurn,
    Turn,
    UserTurn,
)
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import ModelConfig
from proassist_lit.sequence.chat import Chat, chat_format

PARITY = Path(
    os.environ.get("PROASSIST_PARITY_DIR", Path(__file__).parents[3] / "shared" / "parity")
)


def needs(*names: str) -> pytest.MarkDecorator:
    """Skips where the directory of numbers, or one of its files, is not there."""
    missing = [name for name in names if not (PARITY / name).is_file()]
    return pytest.mark.skipif(
        bool(missing), reason=f"no {', '.join(missing)} in {PARITY}; set PROASSIST_PARITY_DIR"
    )


def numbers(name: str) -> Any:
    """Content of a .json file; empty where it is absent, so that tests can be collected."""
    path = PARITY / name
    return json.loads(path.read_text()) if path.is_file() else {}


@cache
def tensors(name: str) -> dict[str, Tensor]:
    return load_file(PARITY / name)


def tokenizer(*added: str) -> PreTrainedTokenizerFast:
    made = PreTrainedTokenizerFast.from_pretrained(PARITY / "tokenizer")
    made.add_special_tokens({"additional_special_tokens": list(added)})
    return made


@cache
def llama_chat(separator: str = "") -> Chat:
    return Chat(chat_format("llama3", separator), tokenizer())


_TEXT_TURNS = {"system": SystemTurn, "user": UserTurn, "assistant": AssistantTurn}


def conversation(turns: Sequence[Mapping[str, Any]], **metadata: Any) -> Conversation:
    """The turns as they are, unchecked: some of them our reader refuses."""
    made: list[Turn] = [
        FramesTurn(start=turn["start"], end=turn["end"])
        if turn["role"] == "frames"
        else _TEXT_TURNS[turn["role"]](content=turn["content"])
        for turn in turns
    ]
    frames = [turn for turn in made if isinstance(turn, FramesTurn)]
    return Conversation(
        dataset="parity",
        video_uid="video",
        clip_idx=0,
        frames_file="frames/video.arrow",
        fps=2.0,
        num_tokens_per_img=1,
        start_frame_idx=frames[0].start if frames else 0,
        end_frame_idx=frames[-1].end if frames else 1,
        turns=tuple(made),
        metadata=metadata,
    )


_SIZES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "intermediate_size", "vocab_size", "max_position_embeddings", "rms_norm_eps",
    "tie_word_embeddings", "attention_bias", "mlp_bias", "hidden_act",
)  # fmt: skip


def build_model(
    sizes: Mapping[str, Any], weights: Mapping[str, Tensor], config: ModelConfig, chat: Chat
) -> AssistantModel:
    """Our model with the reference's weights, under our names; every tensor must find its place.

    Args:
        sizes: the reference's configuration.
        weights: its state dict; names of heads are ours already.
        config: heads.
        chat: the formatter.
    """
    backbone = LlamaForCausalLM(
        LlamaConfig(
            **{name: sizes[name] for name in _SIZES},
            rope_parameters={"rope_type": "default", "rope_theta": sizes["rope_theta"]},
        )
    )
    model = AssistantModel(
        backbone, vision_size=sizes["vision_hidden_size"], config=config, chat=chat
    )
    renamed = {
        name.replace("mm_projector.", "projector.")
        if name.startswith("mm_projector.")
        else name if "head." in name and not name.startswith("lm_head") else f"lm.{name}": tensor
        for name, tensor in weights.items()
    }  # fmt: skip
    model.load_state_dict(renamed, strict=True)
    return model


def head_name(name: str, ours: str) -> str:
    """``linear.weight`` or ``linear.0.weight`` of the reference under our name."""
    return f"{ours}.net.{name.partition('.')[2]}"


def our_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reference's state dict with its decision head under our name and with our sign.

    Its head predicts not talking, ours talking: the last layer is negated.
    """
    renamed = {}
    for name, tensor in weights.items():
        if name.startswith("binary_decision_head"):
            last = ".0." not in name
            renamed[head_name(name, "speak_head")] = -tensor if last else tensor
        else:
            renamed[name] = tensor
    return renamed
