"""Low-rank additions: what trains, what does not, and plain weights for a while."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from proassist_lit.errors import CheckpointError, ConfigError
from proassist_lit.evaluation import evaluator
from proassist_lit.lit.module import AssistantModule
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.backbone import build_backbone, build_tokenizer
from proassist_lit.model.checkpoint import PREFIX, load_weights, saved_names
from proassist_lit.model.config import LoraConfig, ModelConfig, TrainMode
from proassist_lit.model.lora import add_lora, has_lora, merged
from proassist_lit.model.text_side import take_text_side
from proassist_lit.objectives import ObjectiveConfig
from proassist_lit.optimizer_config import OptimizerConfig
from proassist_lit.streaming.decoder import CompiledDecoder, LlamaDecoder, make_decoder
from tests.model.folders import plain_tokenizer
from tests.model.test_architectures import TABLE
from tests.model.tiny_lms import (
    VISION_LMS,
    causal_lm,
    check_gradients,
    check_stream,
    embeddings,
    vision_lm,
)

NEW = [5, 7]
KINDS = ["llama", "qwen2", "gemma", "gemma3", "gpt2", "phi", "phi3", "opt"]
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
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@torch.no_grad()
def logits(model: AssistantModel) -> Tensor:
    ids = torch.arange(24)[None]
    return model.lm_logits(model.hidden_states(model.embed_tokens(ids)))


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


CASES = [
    ("llama", False, False), ("llama", True, False), ("llama", False, True),
    *((kind, True, True) for kind in KINDS), ("phi", False, True), ("gpt2", False, True),
    ("SmolVLM", True, True), ("Qwen2VL", True, True), ("Gemma3", False, True),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "tied", "new"), CASES)
def test_merged_weights_compute_the_same_and_come_apart_again(
    kind: str, tied: bool, new: bool
) -> None:
    plain = logits(adapted(backbone(kind, tied=tied), LoraConfig(rank=3, alpha=1e-30)))
    model = adapted(backbone(kind, tied=tied), ids=NEW if new else [])
    want, before, modules = logits(model), copies(model), dict(model.named_modules())
    assert not torch.allclose(want, plain, atol=1e-2)  # the additions do something

    with merged(model.lm):
        assert not has_lora(model.lm)
        table, head = model.lm.get_input_embeddings(), model.lm.get_output_embeddings()
        assert isinstance(table, nn.Embedding)
        assert type(head) is nn.Linear
        assert (table.weight is head.weight) == tied
        torch.testing.assert_close(logits(model), want, atol=1e-9, rtol=0)

    assert dict(model.named_modules()) == modules
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_merged_equals_unmerged_in_float32() -> None:
    model = adapted(backbone("llama"), LoraConfig(rank=3, alpha=5.0, lm_head=True)).float()
    want = logits(model)
    with merged(model.lm):
        torch.testing.assert_close(logits(model), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_an_output_matrix_with_additions_is_merged_apart_from_the_embeddings(tied: bool) -> None:
    model = adapted(backbone("llama", tied=tied), LoraConfig(rank=3, alpha=5.0, lm_head=True))
    want, table = logits(model), model.lm.get_input_embeddings().weight.clone()
    with merged(model.lm):
        assert torch.equal(model.lm.get_input_embeddings().weight, table)
        torch.testing.assert_close(logits(model), want, atol=1e-9, rtol=0)


def test_streams_run_on_additions_and_by_compiled_kernels_when_merged() -> None:
    model = adapted(backbone("llama"), ids=NEW)
    check_stream(model, make_decoder(model))
    with merged(model.lm):
        decoder = make_decoder(model)
        assert isinstance(decoder, CompiledDecoder | LlamaDecoder)
        check_stream(model, decoder)
    with merged(backbone("llama")):  # nothing to merge
        pass


def test_evaluation_runs_on_merged_weights() -> None:
    model = adapted(backbone("llama")).train()
    with evaluator._evaluating(model):
        assert not has_lora(model.lm)
        assert not model.training
    assert has_lora(model.lm)
    assert model.training


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


def test_a_backbone_that_writes_more_than_it_reads_goes_on() -> None:
    model = adapted(backbone("llama"))
    layer = model.lm.get_decoder().layers[0].mlp.down_proj.base_layer
    layer.register_state_dict_post_hook(  # as layers in 4 bits do
        lambda _, state, prefix, __: state.update({f"{prefix}weight.absmax": torch.ones(3)})
    )
    module = AssistantModule(model, ObjectiveConfig(), OptimizerConfig(), num_steps=1)
    checkpoint = {"state_dict": dict(module.state_dict())}
    assert any(name.endswith("absmax") for name in checkpoint["state_dict"])
    module.on_save_checkpoint(checkpoint)
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])


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


def test_four_bits_say_what_they_need(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"qlora .*tiny is made from scratch; name a pretrained"):
        ModelConfig(train=TrainMode.QLORA)
    causal_lm("Llama", vocab_size=40).save_pretrained(tmp_path)
    plain_tokenizer(tmp_path, 40)
    config = ModelConfig(backbone=str(tmp_path), chat="chatml", train=TrainMode.QLORA)
    tokenizer = build_tokenizer(config, list)
    find = importlib.util.find_spec
    spec: ModuleSpec | None = None
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: spec if n == "bitsandbytes" else find(n, *a)
    )
    with pytest.raises(ConfigError, match=r"pip install 'proassist-lit\[qlora\]'; or set"):
        build_backbone(config, tokenizer)
    spec = ModuleSpec("bitsandbytes", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"on a GPU, and there is none here; set model.train=lor"):
        build_backbone(config, tokenizer)


def saved(model: AssistantModel) -> dict[str, Tensor]:
    names = saved_names(model)
    return {f"{PREFIX}{n}": t.clone() for n, t in model.state_dict().items() if n in names}


def test_checkpoints_hold_what_is_trained_and_go_back_into_the_same_model(tmp_path: Path) -> None:
    model, other = (adapted(backbone("llama", tied=True), ids=NEW) for _ in range(2))
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": (state := saved(model))}, path)
    assert not any("base" in name or "norm" in name for name in state)
    assert any(name.endswith("projector.0.weight") for name in state)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    load_weights(other, path)
    assert torch.equal(logits(other), logits(model))

    gone = next(name for name in state if "lora_A" in name)
    torch.save({"state_dict": {k: v for k, v in state.items() if k != gone}}, path)
    with pytest.raises(CheckpointError, match=rf"1 missing: {gone.removeprefix(PREFIX)}"):
        load_weights(other, path)


def test_lightning_saves_no_frozen_backbone_and_fills_it_in_again() -> None:
    model = adapted(backbone("llama"))
    module = AssistantModule(model, None, None, num_steps=1)  # type: ignore[arg-type]
    checkpoint = {"state_dict": dict(module.state_dict())}
    module.on_save_checkpoint(checkpoint)
    assert set(checkpoint["state_dict"]) == set(saved(model))
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])  # strict

    del checkpoint["state_dict"][f"{PREFIX}projector.0.weight"]
    module.on_load_checkpoint(checkpoint)
    with pytest.raises(RuntimeError, match=r"Missing key.*projector\.0\.weight"):
        module.load_state_dict(checkpoint["state_dict"])


@pytest.mark.parametrize("train", [TrainMode.FULL, TrainMode.FROZEN, TrainMode.LORA])
def test_a_backbone_from_scratch_is_always_saved(train: TrainMode) -> None:
    lm = backbone("llama")
    if train is TrainMode.LORA:
        add_lora(lm, LORA)
    scratch = AssistantModel(lm, vision_size=4, config=ModelConfig(train=train))
    assert saved_names(scratch) == set(scratch.state_dict())
    found = AssistantModel(lm, vision_size=4, config=ModelConfig(backbone="x", train=train))
    assert (saved_names(found) == set(found.state_dict())) == (train is TrainMode.FULL)
