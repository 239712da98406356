"""Tiny assistants with low-rank additions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import LoraConfig, ModelConfig, TrainMode
from proassist_lit.model.lora import add_lora
from proassist_lit.model.text_side import take_text_side
from tests.model.test_architectures import TABLE
from tests.model.tiny_lms import VISION_LMS, causal_lm, vision_lm

NEW = [5, 7]
LORA = LoraConfig(rank=3, alpha=5.0, dropout=0.0)


def backbone(kind: str, *, tied: bool = False) -> Any:
    if kind in VISION_LMS:
        return take_text_side(vision_lm(kind, tied=tied))
    return causal_lm(TABLE[kind][0], **{**TABLE[kind][1], "tie_word_embeddings": tied})


def adapted(lm: Any, config: LoraConfig = LORA, ids: list[int] | None = None) -> AssistantModel:
    """With additions and rows that are no longer zero and the means they began as."""
    add_lora(lm, config, ids or [])
    settings = ModelConfig(backbone="elsewhere", train=TrainMode.LORA, lora=config)
    torch.manual_seed(1)
    model = AssistantModel(lm, vision_size=4, config=settings).double().eval()
    move_trained(lm)
    return model


@torch.no_grad()
def move_trained(lm: nn.Module) -> None:
    """Let what is trained beside a backbone do something."""
    for parameter in lm.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) * 0.1)


@torch.no_grad()
def logits(model: AssistantModel) -> Tensor:
    ids = torch.arange(24)[None]
    return model.lm_logits(model.hidden_states(model.embed_tokens(ids)))


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
