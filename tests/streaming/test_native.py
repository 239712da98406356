"""Compiled kernels against torch: the same numbers, at every size, on every path."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from proassist_lit.errors import ConfigError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import ModelConfig
from proassist_lit.streaming import compiled
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.compiled import CompileError, load_kernels
from proassist_lit.streaming.config import Kernels
from proassist_lit.streaming.decoder import CompiledDecoder, LlamaDecoder, make_decoder
from proassist_lit.streaming.native import NativeLlama, NativeVocabulary
from proassist_lit.streaming.slot_cache import SlotCache
from proassist_lit.streaming.slot_decoder import SlotDecoder
from proassist_lit.streaming.vocabulary import Vocabulary

try:
    load_kernels(torch.float32, 8)
except CompileError as reason:
    pytest.skip(f"no kernels here: {reason}", allow_module_level=True)


def model_of(
    *, heads: int = 6, kv_heads: int = 2, size: int = 8, inner: int = 44, bias: bool = False,
    qwen: bool = False, dtype: torch.dtype = torch.float64,
) -> AssistantModel:  # fmt: skip
    torch.manual_seed(heads * 100 + size)
    kind, lm = (Qwen3Config, Qwen3ForCausalLM) if qwen else (LlamaConfig, LlamaForCausalLM)
    config = kind(
        vocab_size=101, hidden_size=HIDDEN[heads], intermediate_size=inner, num_hidden_layers=2,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=size,
        initializer_range=0.3, attention_bias=bias, bos_token_id=None, eos_token_id=None,
        **({} if qwen else {"mlp_bias": bias}),
    )  # fmt: skip
    model = AssistantModel(lm(config), vision_size=4, config=ModelConfig())
    for name, weight in model.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.uniform_(weight, 0.5, 1.5)
    return model.to(dtype).eval()


HIDDEN = {1: 36, 2: 36, 4: 36, 6: 36, 7: 42, 8: 40}
"""By the number of heads, which must divide it."""

SHAPES = [
    {},  # three queries that share keys
    {"heads": 1, "kv_heads": 1},
    {"heads": 8, "kv_heads": 2, "bias": True},  # four: two and two
    {"heads": 7, "kv_heads": 1, "size": 6, "inner": 3},  # seven; less than a vector
    {"heads": 2, "kv_heads": 2, "size": 64, "inner": 129},
    {"heads": 2, "kv_heads": 1, "size": 96},
    {"heads": 4, "kv_heads": 2, "qwen": True},  # norms of queries and keys
]


def both(model: AssistantModel, counts: list[dict[int, int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """What kernels and torch make of the same steps of four streams."""
    native, plain = SlotDecoder(model, Kernels.COMPILED), SlotDecoder(model, Kernels.TORCH)
    caches = [SlotCache(model, 4, 700) for _ in range(2)]
    for step in counts:
        x = torch.randn(sum(step.values()), model.lm.config.hidden_size, dtype=model.dtype)
        yield native(x, step, caches[0]), plain(x, step, caches[1])
    for mine, other in zip(*(cache.keys + cache.values for cache in caches), strict=True):
        torch.testing.assert_close(mine, other, **CLOSE[mine.dtype])
    assert caches[0].lengths == caches[1].lengths


STEPS = [
    {0: 200, 2: 3}, {0: 1, 1: 1, 2: 1, 3: 1}, {1: 70, 2: 9}, {2: 1}, {0: 8, 1: 1, 3: 17}, {0: 300},
]  # fmt: skip


CLOSE = {
    torch.float64: {"atol": 1e-10, "rtol": 1e-9},
    torch.float32: {"atol": 1e-3, "rtol": 1e-3},
}


@pytest.fixture
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hugging Face's norms, which torch goes through, round through float32."""

    def normalize(x: Tensor, norm: Any) -> Tensor:
        return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)

    monkeypatch.setattr("proassist_lit.streaming.llama.normalize", normalize)


@pytest.mark.usefixtures("exact_norms")
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_equal_torch(shape: dict[str, int], dtype: torch.dtype) -> None:
    for ours, theirs in both(model_of(**shape, dtype=dtype), STEPS):
        torch.testing.assert_close(ours, theirs, **CLOSE[dtype])


def test_kernels_do_not_look_at_what_was_cropped() -> None:
    model = model_of()
    decode, cache = SlotDecoder(model, Kernels.COMPILED), SlotCache(model, 1, 64)
    x = torch.randn(12, 36, dtype=torch.float64)
    whole = decode(x, {0: 12}, cache)
    cache.crop(0, 7)
    torch.testing.assert_close(decode(x[7:], {0: 5}, cache), whole[7:], atol=1e-12, rtol=0)


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many threads, for a while."""
    before = torch.get_num_threads()
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 3], indirect=True)
def test_kernels_give_the_same_with_any_number_of_threads(threads: int) -> None:
    model = model_of()
    x = torch.randn(40, 36, dtype=torch.float64)

    def run() -> Tensor:
        return SlotDecoder(model, Kernels.COMPILED)(x, {0: 39, 2: 1}, SlotCache(model, 3, 64))

    want = run()
    torch.set_num_threads(threads)
    torch.testing.assert_close(run(), want, atol=0, rtol=0)


@pytest.mark.usefixtures("exact_norms")
def test_sessions_decoder_equals_torch_while_its_cache_grows() -> None:
    model = model_of()
    ours, theirs = CompiledDecoder(model), LlamaDecoder(model)
    mine, other = KVCache(2, capacity=4), KVCache(2)
    for size in (3, 1, 1, 30, 1):
        x = torch.randn(size, 36, dtype=torch.float64)
        torch.testing.assert_close(ours(x, mine), theirs(x, other), **CLOSE[x.dtype])
    mine.crop(20), other.crop(20)
    x = torch.randn(2, 36, dtype=torch.float64)
    torch.testing.assert_close(ours(x, mine), theirs(x, other), **CLOSE[x.dtype])
    assert len(mine) == len(other) == 22


@pytest.mark.parametrize("threads", [1, 3], indirect=True)
@pytest.mark.parametrize("rows", [1, 7, 30])
def test_vocabulary_takes_the_best_and_of_equals_the_first(rows: int, threads: int) -> None:
    torch.set_num_threads(threads)
    head = nn.Linear(200, 3001, bias=True, dtype=torch.float64)  # enough for every thread
    with torch.no_grad():
        head.weight[3::97] = head.weight[3]
        head.bias[3::97] = head.bias[3]
        x = torch.randn(rows, 200, dtype=torch.float64)
        x[0] = head.weight[3] * 50
        want = head(x).argmax(-1).tolist()
    got = NativeVocabulary(head, 8).best(x)
    assert got[0] == 3
    assert got == want


def test_numbers_that_overflow_or_vanish_are_those_of_torch() -> None:
    # in silu and softmax, which have an exponential of their own in float32
    model = model_of(dtype=torch.float32)
    with torch.no_grad():
        for layer in model.lm.get_decoder().layers:
            layer.mlp.gate_proj.weight.mul_(30)
            layer.self_attn.q_proj.weight.mul_(6)
    for ours, theirs in both(model, STEPS[:3]):
        assert torch.isfinite(ours).all()
        torch.testing.assert_close(ours, theirs, **CLOSE[torch.float32])


def test_weights_are_those_of_the_beginning() -> None:
    model = model_of()
    native = NativeLlama(model)
    x, cache = torch.randn(3, 36, dtype=torch.float64), SlotCache(model, 1, 8)
    want = native(x, [(0, 0, 3)], cache.keys, cache.values)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    torch.testing.assert_close(native(x, [(0, 0, 3)], cache.keys, cache.values), want)


def test_torch_is_taken_where_kernels_do_not_fit() -> None:
    bf16 = model_of(dtype=torch.bfloat16)
    assert isinstance(make_decoder(bf16), LlamaDecoder)
    assert Vocabulary(bf16)._native == {False: None}
    with pytest.raises(
        ConfigError, match=r"stream\.kernels=compiled.*bfloat16.*stream\.kernels=auto"
    ):
        make_decoder(bf16, Kernels.COMPILED)
    wrapped = model_of()
    wrapped.lm.get_decoder().layers[1].mlp.up_proj = nn.Sequential(nn.Linear(36, 44))
    assert isinstance(make_decoder(wrapped.double()), LlamaDecoder)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine that has compiled nothing yet."""
    monkeypatch.setenv("PROASSIST_LIT_CACHE", str(tmp_path))
    load_kernels.cache_clear()
    yield tmp_path
    load_kernels.cache_clear()


def test_torch_is_taken_without_a_compiler(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled.shutil, "which", lambda _: None)
    monkeypatch.delenv("CC", raising=False)
    with caplog.at_level("INFO"):
        assert isinstance(make_decoder(model_of(dtype=torch.float32)), LlamaDecoder)
    assert "no C compiler was found" in caplog.text
    assert not list(elsewhere.iterdir())


def test_a_compiler_that_fails_says_why_and_leaves_nothing(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = elsewhere / "broken.c"
    broken.write_text("int main( {")
    monkeypatch.setattr(compiled, "SOURCE", broken)
    with pytest.raises(CompileError, match=r"broken\.c.*error"):
        load_kernels(torch.float32, 8)
    assert [p.name for p in elsewhere.rglob("*") if p.is_file()] == ["broken.c"]


def test_kernels_are_compiled_once(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_kernels(torch.float64, 8)
    [library] = elsewhere.rglob("*.so")
    load_kernels.cache_clear()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(subprocess, "run", refuse)
    load_kernels(torch.float64, 8)
    assert library.is_file()
