"""Backbones in 4 bits, by bitsandbytes' own layers where it is: pip install '.[qlora]'."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

from proassist_lit.errors import ConfigError
from proassist_lit.exchange.write import write_backbone
from proassist_lit.lit.parts import model_parts
from proassist_lit.model import pretrained
from proassist_lit.model.arithmetic import StepArithmetic
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.backbone import build_backbone, build_tokenizer
from proassist_lit.model.config import LoraConfig, ModelConfig, TrainMode
from proassist_lit.model.lora import add_lora, has_lora, merged
from tests.model.adapted import NEW, move_trained
from tests.model.folders import plain_tokenizer
from tests.model.tiny_lms import causal_lm

HAS_FOUR_BITS = importlib.util.find_spec("bitsandbytes") is not None
needs_four_bits = pytest.mark.skipif(
    not HAS_FOUR_BITS, reason="bitsandbytes is not installed: pip install -e '.[qlora]'"
)


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Llama read into 4 bits on the CPU, with layers of a multiple of 32 rows and others.

    A GPU has kernels of its own, which do not round as unpacked weights do.
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    causal_lm("Llama", hidden_size=64, intermediate_size=72).save_pretrained(tmp_path)
    return pretrained.load_model(str(tmp_path), four_bit=True)


def adapted(lm: Any) -> Any:
    """With additions and rows that do something."""
    add_lora(lm, LoraConfig(rank=3, alpha=5.0, dropout=0.0), NEW)
    torch.manual_seed(1)
    move_trained(lm)
    return lm


@torch.no_grad()
def logits(lm: Any) -> Tensor:
    out: Tensor = lm(torch.arange(24)[None]).logits
    return out


def bytes_of(lm: Any) -> dict[str, Tensor]:
    return {n: p.data.clone() for n, p in lm.named_parameters() if p.dtype is torch.uint8}


@needs_four_bits
def test_a_backbone_in_four_bits_computes_what_its_unpacked_weights_do(packed: Any) -> None:
    assert len(bytes_of(packed)) == 7 * packed.config.num_hidden_layers
    want = logits(packed)
    with merged(packed):
        assert not bytes_of(packed)
        assert {type(m) for m in packed.modules() if isinstance(m, nn.Linear)} == {nn.Linear}
        assert torch.equal(logits(packed), want)
    assert len(bytes_of(packed)) == 7 * packed.config.num_hidden_layers


@needs_four_bits
def test_streams_leave_weights_in_four_bits_as_training_has_them(packed: Any) -> None:
    lm = adapted(packed)
    before, want = bytes_of(lm), logits(lm.train())

    logits(lm.eval())
    with merged(lm):
        assert not has_lora(lm)
        merged_once = logits(lm)

    assert all(torch.equal(weight, before[name]) for name, weight in bytes_of(lm).items())
    assert torch.equal(logits(lm.train()), want)
    with merged(lm):
        assert torch.equal(logits(lm), merged_once)
    # The sum of weight and addition is rounded to bfloat16, where the model adds what they give.
    assert (merged_once - want).abs().mean() < 0.1 * want.abs().mean()


@needs_four_bits
def test_weights_put_together_from_the_parts_of_devices_are_unpacked_alike(packed: Any) -> None:
    lm = adapted(packed)
    with merged(lm):
        want = logits(lm)
    for module in lm.modules():
        if isinstance(module, nn.Linear) and module.weight.dtype is torch.uint8:
            module.weight = nn.Parameter(module.weight.data.clone(), requires_grad=False)
    with merged(lm):
        assert torch.equal(logits(lm), want)


@needs_four_bits
def test_additions_beside_four_bits_are_trained_and_nothing_else(packed: Any) -> None:
    lm = adapted(packed).train()
    before = {name: p.detach().clone() for name, p in lm.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in lm.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(4):
        ids = torch.arange(24)[None]
        loss = nn.functional.cross_entropy(lm(ids).logits[0, :-1].float(), ids[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < losses[0]
    changed = {n for n, p in lm.named_parameters() if not torch.equal(p.detach(), before[n])}
    assert changed == {n for n in before if ".lora_" in n or n.endswith(".rows")}


@needs_four_bits
def test_weights_in_four_bits_are_counted_one_by_one(packed: Any, tmp_path: Path) -> None:
    plain = pretrained.load_model(str(tmp_path)).requires_grad_(False)
    settings = ModelConfig(backbone=str(tmp_path), train=TrainMode.FROZEN)
    mine, other = (
        AssistantModel(lm, vision_size=4, config=settings)
        for lm in (packed.requires_grad_(False), plain)
    )
    assert StepArithmetic.of(mine) == StepArithmetic.of(other)
    assert [part.parameters for part in model_parts(mine)] == [
        part.parameters for part in model_parts(other)
    ]


@pytest.mark.parametrize(
    ("environment", "gpu"),
    [({}, 0), ({"LOCAL_RANK": "3"}, 3), ({"SLURM_LOCALID": "5"}, 1), ({"LOCAL_RANK": "4"}, 0)],
)
def test_weights_in_four_bits_go_to_the_gpu_of_their_process(
    environment: dict[str, str], gpu: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(pretrained, "_load_config", lambda _: LlamaConfig())
    monkeypatch.setattr(pretrained, "quantization", lambda: None)
    asked: dict[str, object] = {}

    def read(*_: object, **options: object) -> object:
        asked.update(options)
        raise ConfigError("read")

    monkeypatch.setattr(pretrained, "_read", read)
    with pytest.raises(ConfigError, match="read"):
        pretrained.load_model("x", four_bit=True)
    assert asked["device_map"] == {"": gpu}


def test_nothing_that_is_written_of_a_backbone_in_four_bits_names_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lm = causal_lm("Llama")
    monkeypatch.setattr(pretrained, "_load_config", lambda _: lm.config)
    monkeypatch.setattr(pretrained, "quantization", lambda: None)

    def read(*_: object, **__: object) -> tuple[Any, dict[str, list[str]]]:
        lm.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        lm.hf_quantizer = object()  # as transformers leaves a model
        return lm, {"missing_keys": []}

    monkeypatch.setattr(pretrained, "_read", read)
    loaded = pretrained.load_model("x", four_bit=True)
    add_lora(loaded, LoraConfig(rank=2))

    write_backbone(loaded, tmp_path)

    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    assert loaded.hf_quantizer is None
    AutoModelForCausalLM.from_pretrained(tmp_path)


def test_four_bits_say_what_they_need(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"qlora .*tiny is made from scratch; name a pretrained"):
        ModelConfig(train=TrainMode.QLORA)
    causal_lm("Llama", vocab_size=40).save_pretrained(tmp_path)
    plain_tokenizer(tmp_path, 40)
    config = ModelConfig(backbone=str(tmp_path), chat="chatml", train=TrainMode.QLORA)
    tokenizer = build_tokenizer(config, list)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "bitsandbytes" else find(n, *a)
    )
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[qlora\]' in the folder of"):
        build_backbone(config, tokenizer)
