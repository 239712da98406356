"""Backbones in sixteen bits: what trains beside them, and what streams run on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from proassist_lit.lit.precision import HalfWeights
from proassist_lit.model.as_streamed import as_streamed, make_plain
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.backbone import build_backbone, build_tokenizer
from proassist_lit.model.config import Dtype, LoraConfig, ModelConfig, TinyConfig, TrainMode
from proassist_lit.model.lora import add_lora, has_lora
from proassist_lit.model.weights_type import cast_weights
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.decoder import make_decoder
from tests.model.folders import plain_tokenizer
from tests.model.tiny_lms import causal_lm

LORA = LoraConfig(rank=2, alpha=4.0, dropout=0.0)
TEXTS = ["Now slice the carrot with the knife."] * 4


def half(*, tied: bool = False, ids: tuple[int, ...] = (5, 7)) -> AssistantModel:
    """A Llama in bfloat16; additions, new rows, projector and all heads in float32, none zero."""
    lm = causal_lm("Llama", tie_word_embeddings=tied)
    cast_weights(lm, torch.bfloat16)
    add_lora(lm, LORA, ids)
    torch.manual_seed(1)
    config = ModelConfig(
        backbone="elsewhere", train=TrainMode.LORA, lora=LORA, dtype=Dtype.BFLOAT16,
        dst_output_head=True,
    )  # fmt: skip
    model = AssistantModel(lm, vision_size=4, config=config)
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def kinds(model: nn.Module, *, trained: bool) -> set[torch.dtype]:
    return {p.dtype for p in model.parameters() if p.requires_grad is trained}


@torch.no_grad()
def scores(model: AssistantModel) -> list[torch.Tensor]:
    hidden = model.hidden_states(model.embed_tokens(torch.arange(24))[None])
    assert model.dst_head is not None
    heads = model.speak_head(hidden), model.dst_head(hidden)
    return [s.float() for s in (*heads, model.lm_logits(hidden), model.lm_logits(hidden, dst=True))]


@pytest.mark.parametrize("tied", [False, True])
def test_what_trains_beside_bfloat16_is_float32_and_learns_without_autocast(tied: bool) -> None:
    model = half(tied=tied)
    assert model.dtype is torch.bfloat16
    assert kinds(model, trained=False) == {torch.bfloat16}
    assert kinds(model, trained=True) == {torch.float32}

    words, frames = model.embed_tokens(torch.arange(8)), model.project(torch.randn(4, 4))
    hidden = model.hidden_states(torch.cat([words, frames.to(words.dtype)])[None])
    assert model.dst_head is not None
    heads = [model.speak_head(hidden), model.dst_head(hidden)]
    heads += [model.lm_logits(hidden), model.lm_logits(hidden, dst=True)]
    torch.stack([score.float().square().mean() for score in heads]).sum().backward()
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("tied", [False, True])
def test_streams_run_on_plain_weights_of_one_type_and_training_goes_on(tied: bool) -> None:
    model = half(tied=tied)
    want, modules = scores(model), dict(model.named_modules())
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with as_streamed(model):
        assert not has_lora(model.lm)
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        for got, wanted in zip(scores(model), want, strict=True):
            assert (got - wanted).norm() < 0.03 * wanted.norm()  # bfloat16 has 8 bits
        embeds = model.embed_tokens(torch.arange(24))
        hidden = make_decoder(model)(embeds, KVCache(model.lm.config.num_hidden_layers, 32))
        whole = model.hidden_states(embeds[None])[0, -1]
        assert (hidden - whole).norm() < 0.03 * whole.norm()
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())

    make_plain(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_a_model_of_one_type_keeps_its_parts() -> None:
    model = AssistantModel(causal_lm("Llama"), vision_size=4, config=ModelConfig())
    parts = dict(model.named_children())
    with as_streamed(model):
        assert dict(model.named_children()) == parts
    assert make_plain(model) == []


@pytest.mark.parametrize("where", ["tiny", "folder"])
def test_backbones_are_read_in_the_type_that_was_asked_for(where: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"tiny": TinyConfig(hidden_size=32, num_layers=2, num_heads=2)}
    if where == "folder":
        causal_lm("Llama", vocab_size=40).save_pretrained(tmp_path)
        plain_tokenizer(tmp_path, 40)
        settings = {"backbone": str(tmp_path), "chat": "chatml", "lora": LORA}
    config = ModelConfig(dtype=Dtype.BFLOAT16, train=TrainMode.LORA, **settings)
    lm = build_backbone(config, build_tokenizer(config, lambda: TEXTS))

    assert kinds(lm, trained=False) == {torch.bfloat16}
    assert kinds(lm, trained=True) == {torch.float32}
    assert lm.get_decoder().rotary_emb.inv_freq.dtype is torch.float32


def test_sixteen_bits_leave_the_frequencies_of_positions_exact() -> None:
    model = AssistantModel(causal_lm("Llama"), vision_size=4, config=ModelConfig())
    before = model.lm.get_decoder().rotary_emb.inv_freq.clone()
    HalfWeights("bf16-true").convert_module(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(model.lm.get_decoder().rotary_emb.inv_freq, before, atol=0, rtol=0)
