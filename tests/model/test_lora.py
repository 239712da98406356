"""Low-rank additions: what trains, and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from proassist_lit.errors import ConfigError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.backbone import build_backbone, build_tokenizer
from proassist_lit.model.checkpoint import saved_names
from proassist_lit.model.config import LoraConfig, ModelConfig, TrainMode
from proassist_lit.model.lora import add_lora
from tests.model.adapted import NEW, adapted, backbone, copies
from tests.model.folders import plain_tokenizer
from tests.model.tiny_lms import causal_lm, check_gradients, embeddings


@pytest.mark.parametrize(("kind", "tied"), [("llama", False), ("gemma3", True), ("gpt2", True)])
def test_only_additions_new_rows_projector_and_heads_train(kind: str, tied: bool) -> None:
    model = adapted(backbone(kind, tied=tied), ids=NEW)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    for name in trained:
        assert ".lora_" in name or name.endswith(".rows") or not name.startswith("lm."), name
    frozen = {name for name, _ in model.named_parameters()} - trained
    before = copies(model)
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        words = model.embed_tokens(torch.arange(8))
        frames = model.project(embeddings(4)[:, :4])
        hidden = model.hidden_states(torch.cat([words, frames])[None])
        scores = [model.speak_head(hidden), model.dst_head(hidden), model.lm_logits(hidden)]
        sum(score.square().mean() for score in scores).backward()
        optimizer.step()
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not any(torch.equal(before[name], after[name]) for name in trained)


def test_every_trained_weight_gets_a_gradient() -> None:
    model = adapted(backbone("llama"), ids=NEW)
    trained = {n: w for n, w in model.named_parameters() if w.requires_grad}
    check_gradients(model)  # lets all require one
    assert all(weight.grad.abs().sum() > 0 for weight in trained.values())


@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("gemma3", True), ("phi", False)])
def test_rows_of_new_tokens_learn_as_in_full_training(kind: str, tied: bool) -> None:
    full = backbone(kind, tied=tied)
    torch.manual_seed(1)
    whole = AssistantModel(full, vision_size=4, config=ModelConfig()).double()
    partly = adapted(backbone(kind, tied=tied), LoraConfig(rank=1, alpha=1e-30), NEW)
    for model in (whole, partly):
        with torch.no_grad():  # the same rows again: ``adapted`` moved them
            for matrix in (model.lm.get_input_embeddings(), model.lm.get_output_embeddings()):
                matrix.rows.copy_(matrix.base.weight[NEW]) if model is partly else None
        hidden = model.hidden_states(model.embed_tokens(torch.arange(12))[None])
        model.lm_logits(hidden).square().mean().backward()
    for get in ("get_input_embeddings", "get_output_embeddings"):
        want = getattr(full, get)().weight.grad[NEW]
        got = getattr(partly.lm, get)().rows.grad
        torch.testing.assert_close(got, want, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("lm_head", [False, True])
def test_tokens_that_the_backbone_lacks_are_trained(lm_head: bool, tmp_path: Path) -> None:
    causal_lm("Llama", vocab_size=40).save_pretrained(tmp_path)
    plain_tokenizer(tmp_path, 40)
    config = ModelConfig(
        backbone=str(tmp_path), chat="chatml", train=TrainMode.LORA,
        lora=LoraConfig(rank=2, lm_head=lm_head),
    )  # fmt: skip
    tokenizer = build_tokenizer(config, list)
    lm = build_backbone(config, tokenizer)

    ids = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert lm.get_input_embeddings().ids.tolist() == ids
    head = lm.get_output_embeddings()
    assert hasattr(head, "lora_A") == lm_head
    assert hasattr(head, "rows") == (not lm_head)
    assert all(w.requires_grad == (".lora_" in n or "rows" in n) for n, w in lm.named_parameters())


def test_a_frozen_backbone_learns_the_tokens_that_it_lacks(tmp_path: Path) -> None:
    causal_lm("Llama", vocab_size=40).save_pretrained(tmp_path)
    plain_tokenizer(tmp_path, 40)
    config = ModelConfig(backbone=str(tmp_path), chat="chatml", train=TrainMode.FROZEN)
    lm = build_backbone(config, build_tokenizer(config, list))
    model = AssistantModel(lm, vision_size=4, config=config)

    assert {n for n, w in lm.named_parameters() if w.requires_grad} == {
        "model.embed_tokens.rows", "lm_head.rows",
    }  # fmt: skip
    assert lm.lm_head.rows.shape == (2, 16)
    assert {n for n in saved_names(model) if n.startswith("lm.")} == {
        "lm.model.embed_tokens.rows", "lm.lm_head.rows",
    }  # fmt: skip


def test_targets_can_be_chosen_and_are_checked() -> None:
    lm = backbone("llama")
    add_lora(lm, LoraConfig(rank=2, targets=["q_proj", "down_proj"]))
    assert {n.split(".")[-4] for n, _ in lm.named_parameters() if "lora_A" in n} == {
        "q_proj", "down_proj",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"no linear layer c_attn, qproj; it has down_proj, gate"):
        add_lora(backbone("llama"), LoraConfig(targets=["qproj", "c_attn"]))
    with pytest.raises(ConfigError, match=r"lm_head=true adds .* rows of 2 new tokens .*; set"):
        add_lora(backbone("llama", tied=True), LoraConfig(lm_head=True), NEW)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, r"lora\.rank must be at least 1, got 0"),
        ({"alpha": 0.0}, r"lora\.alpha must be > 0"),
        ({"dropout": 1.0}, r"lora\.dropout must be in \[0, 1\)"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoraConfig(**settings)
