"""Tiny random vision models of Hugging Face, saved as folders with their image processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ResNetConfig,
    ResNetModel,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

SIDE, PATCH, WIDTH, LAYERS = 60, 10, 32, 3
TOWER = {
    "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": LAYERS,
    "num_attention_heads": 2, "image_size": SIDE, "patch_size": PATCH,
}  # fmt: skip
TEXT = {
    "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 1,
    "num_attention_heads": 2, "vocab_size": 20,
}  # fmt: skip
NAMES = ("siglip", "clip", "dinov2", "registers", "resnet")


def tiny_network(name: str) -> Any:
    """A model in evaluation mode, always the same."""
    torch.manual_seed(0)
    if name == "siglip":
        model: Any = SiglipModel(SiglipConfig(vision_config=TOWER, text_config={
            **TEXT, "projection_size": WIDTH}))  # fmt: skip
    elif name == "clip":
        model = CLIPModel(CLIPConfig(vision_config=TOWER, text_config=TEXT))
    elif name == "dinov2":
        model = Dinov2Model(Dinov2Config(**TOWER))
    elif name == "registers":
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**TOWER))
    else:
        model = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[16, WIDTH], depths=[1, 1]))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # zeros and ones would hide what is left out
    return model.eval()


def tiny_processor(name: str) -> Any:
    """Its image processor: SigLIP's stretches, the others crop the middle."""
    if name == "siglip":
        return SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    kind = CLIPImageProcessorPil if name == "clip" else BitImageProcessorPil
    return kind(size={"shortest_edge": 64}, crop_size={"height": SIDE, "width": SIDE})


def save(name: str, folder: Path) -> Path:
    """Save both in a folder of this name."""
    tiny_network(name).save_pretrained(folder / name)
    tiny_processor(name).save_pretrained(folder / name)
    return folder / name


def tower(model: Any) -> Any:
    """The vision side."""
    return getattr(model, "vision_model", model)
