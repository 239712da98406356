from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from transformers import DynamicCache

from proassist_lit.errors import ConfigError
from proassist_lit.model.backbone import build_backbone, build_tokenizer
from proassist_lit.model.config import ModelConfig
from proassist_lit.model.suitability import check_backbone
from tests.model.folders import folder_of, save_tokenizer
from tests.model.tiny_lms import causal_lm


def config_json(folder: Path, text: str) -> ModelConfig:
    save_tokenizer(folder)
    (folder / "config.json").write_text(text)
    return ModelConfig(backbone=str(folder))


REFUSED = {
    "bert": r"\(bert\) is an encoder, in which every token sees those after it; give a causal",
    "roberta": r"\(roberta\) is an encoder",
    "t5": r"\(t5\) is an encoder-decoder; give a causal language model",
    "bart": r"\(bart\) is an encoder-decoder",
    "mamba": r"\(mamba\) is a model with layers \(linear_attention\) whose memory cannot be cut",
    "qwen3_next": r"layers \(linear_attention\) whose memory cannot be cut back or copied; give",
    "vit": r"\(vit\) is not a language model; give a causal",
    "nonesuch": r"config.json cannot be read .*`nonesuch`.*; the folder must hold",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_causal_language_model_is_refused(kind: str, tmp_path: Path) -> None:
    config = config_json(tmp_path, f'{{"model_type": "{kind}"}}')
    with pytest.raises(ConfigError, match=REFUSED[kind]):
        build_backbone(config, None)


def test_an_encoder_is_refused_before_its_tokenizer_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match=r"is an encoder"):
        build_tokenizer(ModelConfig(backbone=str(tmp_path)), list)


@pytest.mark.parametrize(
    "build", [lambda c: build_tokenizer(c, list), lambda c: build_backbone(c, 0)]
)
def test_missing_folders_and_files_are_named(build: Any, tmp_path: Path) -> None:
    for name in (str(tmp_path / "none"), "./none", "~/none/at/all"):
        with pytest.raises(ConfigError, match=r"there is no such folder; give"):
            build(ModelConfig(backbone=name))
    with pytest.raises(ConfigError, match=r"a folder without config.json; give the folder that"):
        build(ModelConfig(backbone=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model')
    with pytest.raises(ConfigError, match=r"config.json cannot be read .*JSON.*; the folder must"):
        build(ModelConfig(backbone=str(tmp_path)))


def test_missing_weights_and_tokenizers_are_named(tmp_path: Path) -> None:
    config = config_json(tmp_path, '{"model_type": "llama"}')
    with pytest.raises(ConfigError, match=r"its weights cannot be read .*safetensors"):
        build_backbone(config, None)
    other = tmp_path / "other"
    causal_lm("Llama").save_pretrained(other)
    with pytest.raises(ConfigError, match=r"its tokenizer cannot be read .*; the folder must hold"):
        build_tokenizer(ModelConfig(backbone=str(other)), list)


def test_an_id_that_cannot_be_fetched_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    config = ModelConfig(backbone="nobody/no-such-model")
    for build in (lambda: build_tokenizer(config, list), lambda: build_backbone(config, None)):
        with pytest.raises(
            ConfigError,
            match=r"'nobody/no-such-model': its config.json .* sought on the hub: check",
        ):
            build()


def test_weights_that_are_not_in_the_files_are_not_made_up(tmp_path: Path) -> None:
    lm = causal_lm("Llama", tie_word_embeddings=False)
    config = folder_of(lm, tmp_path)
    weights = lm.state_dict()
    del weights["lm_head.weight"]
    lm.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ConfigError, match=r"files lack the weights lm_head.weight, which would"):
        build_backbone(config, None)


def test_models_that_would_compute_something_else_are_refused() -> None:
    lm = causal_lm("OPT", ffn_dim=20, word_embed_proj_dim=8)
    with pytest.raises(ConfigError, match=r"\(OPTForCausalLM\) .* are 8, 16 and 8 wide and should"):
        check_backbone("opt", lm, lm)

    lm = causal_lm("Bert", is_decoder=False, pad_token_id=0)
    with pytest.raises(ConfigError, match=r"\(BertLMHeadModel\) .* with a cache it computes"):
        check_backbone("bert", lm, lm)

    lm = causal_lm("Bert", is_decoder=True, pad_token_id=0)
    with pytest.raises(ConfigError, match=r"its logits are not its output matrix times"):
        check_backbone("bert", lm, lm)

    lm = causal_lm("Mamba", state_size=4)
    with pytest.raises(ConfigError, match=r"\(MambaForCausalLM\) cannot be streamed"):
        check_backbone("mamba", lm, lm)

    lm = causal_lm("Llama4Text", num_local_experts=1, head_dim=8, attention_chunk_size=8)
    with pytest.raises(ConfigError, match=r"last_hidden_state"):
        check_backbone("llama4", lm, lm)


def deep_llama(dtype: torch.dtype) -> Any:
    """As deep as large models are, with weights as small as theirs."""
    lm = causal_lm("Llama", hidden_size=64, num_hidden_layers=32, initializer_range=0.02)
    return lm.to(dtype).eval()


@pytest.mark.parametrize(("dtype", "passes"), [(torch.bfloat16, True), (torch.float32, False)])
def test_what_sixteen_bits_round_apart_is_no_fault(dtype: torch.dtype, passes: bool) -> None:
    lm = deep_llama(dtype)

    def round_apart(decoder: Any, args: Any, options: Any, output: Any) -> None:
        hidden = output.last_hidden_state
        if hidden.shape[1] == 1:  # products of one row, by another kernel
            hidden[..., 0] += 0.025 * hidden.abs().max()

    lm.get_decoder().register_forward_hook(round_apart, with_kwargs=True)
    if passes:
        check_backbone("deep", lm, lm)
        return
    with pytest.raises(ConfigError, match="with a cache it computes something else"):
        check_backbone("deep", lm, lm)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_cache_that_loses_one_key_is_refused_in_any_type(dtype: torch.dtype) -> None:
    lm = deep_llama(dtype)
    check_backbone("deep", lm, lm)

    def lose_one(decoder: Any, args: Any, options: Any) -> None:
        for cache in options.values():
            if isinstance(cache, DynamicCache) and cache.get_seq_length() == 3:
                cache.crop(-1)

    lm.get_decoder().register_forward_pre_hook(lose_one, with_kwargs=True)
    with pytest.raises(ConfigError, match="with a cache it computes something else"):
        check_backbone("deep", lm, lm)
