"""Kernels for a GPU against torch: on a GPU, or by Triton's interpreter where there is none.

pip install triton; TRITON_INTERPRET=1 python -m pytest tests/streaming/test_gpu_llama.py
"""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import ModelConfig
from proassist_lit.streaming import gpu_llama
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.compiled import CompileError
from proassist_lit.streaming.config import Kernels
from proassist_lit.streaming.decoder import LlamaDecoder
from proassist_lit.streaming.gpu_layers import Shape
from proassist_lit.streaming.gpu_llama import GpuLlama
from proassist_lit.streaming.slot_cache import SlotCache
from proassist_lit.streaming.slot_decoder import SlotDecoder

pytestmark = [  # both from Triton's interpreter: rows of nobody hold anything
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

if importlib.util.find_spec("triton") is None:
    pytest.skip("kernels for a GPU need Triton, which is not here", allow_module_level=True)
if DEVICE.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no GPU, and TRITON_INTERPRET=1 is not set", allow_module_level=True)


def model_of(
    kind: str = "llama", *, heads: int = 4, kv_heads: int = 2, size: int = 16,
    dtype: torch.dtype = torch.float32,
) -> AssistantModel:  # fmt: skip
    torch.manual_seed(heads)
    config, lm = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),  # biases
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),  # norms of queries and keys
    }[kind]
    model = AssistantModel(
        lm(config(
            vocab_size=101, hidden_size=heads * 16, intermediate_size=44, num_hidden_layers=2,
            num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=size,
            initializer_range=0.3, bos_token_id=None, eos_token_id=None,
        )),
        vision_size=4, config=ModelConfig(),
    )  # fmt: skip
    for name, weight in model.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.uniform_(weight, 0.5, 1.5)
    return model.to(DEVICE, dtype).eval()


CLOSE = {
    torch.float32: {"atol": 1e-4, "rtol": 1e-4},
    torch.float16: {"atol": 5e-2, "rtol": 5e-2},
}


class Both:
    """The kernels and torch, fed the same."""

    def __init__(self, model: AssistantModel, num_slots: int = 3) -> None:
        self.model, self.plain = model, SlotDecoder(model, Kernels.TORCH)
        self.ours, self.theirs = (SlotCache(model, num_slots, 200) for _ in range(2))
        self.compiled = GpuLlama(model)

    @torch.inference_mode()
    def feed(self, counts: dict[int, int]) -> tuple[Tensor, Tensor]:
        """Last hidden states of both."""
        x = torch.randn(
            sum(counts.values()), self.model.hidden_size, dtype=self.model.dtype, device=DEVICE
        )
        runs = [(slot, self.ours.lengths[slot], count) for slot, count in counts.items()]
        mine = self.compiled(x, runs, self.ours.keys, self.ours.values)
        for slot, count in counts.items():
            self.ours.lengths[slot] += count
        return mine, self.plain(x, counts, self.theirs)

    def crop(self, slot: int, length: int) -> None:
        for cache in (self.ours, self.theirs):
            cache.crop(slot, length)

    def check_caches(self) -> None:
        close = CLOSE[self.model.dtype]
        for name in ("keys", "values"):
            for mine, other in zip(
                getattr(self.ours, name), getattr(self.theirs, name), strict=True
            ):
                for slot, length in enumerate(self.ours.lengths):
                    torch.testing.assert_close(
                        mine[slot, :, :length], other[slot, :, :length], **close
                    )


STEPS = [{0: 70, 2: 3}, {0: 1, 1: 1, 2: 1}, {1: 20, 2: 9}, {2: 1}, {0: 8, 1: 1}, {0: 30}]


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"heads": 6, "kv_heads": 2},  # three queries that share keys: a tile has rows of nobody
        {"heads": 2, "kv_heads": 2, "size": 32},
        {"kind": "qwen2"},
        {"kind": "qwen3"},
        {"dtype": torch.float16},
    ],
    ids=str,
)
def test_kernels_equal_torch(shape: dict[str, object]) -> None:
    both = Both(model_of(**shape))  # type: ignore[arg-type]
    for step in STEPS:
        ours, theirs = both.feed(step)
        torch.testing.assert_close(ours, theirs, **CLOSE[both.model.dtype])
    both.check_caches()


@pytest.mark.parametrize("most", [0, 32])
def test_kernels_equal_torch_however_a_context_is_shared_out(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proassist_lit.streaming.gpu_layers.MOST_SPLITS", most)
    assert Shape(1, 1, 16).splits(2) == max(1, most)
    both = Both(model_of())
    for step in STEPS:
        torch.testing.assert_close(*both.feed(step), **CLOSE[torch.float32])


def test_kernels_do_not_look_at_what_was_cropped() -> None:
    both = Both(model_of())
    both.feed({0: 90, 1: 2})
    both.crop(0, 40)
    torch.testing.assert_close(*both.feed({0: 5}), **CLOSE[torch.float32])


def test_long_input_is_fed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_llama, "MOST_ROWS", 16)
    both = Both(model_of())
    torch.testing.assert_close(*both.feed({0: 37, 1: 5, 2: 11}), **CLOSE[torch.float32])
    both.check_caches()


@torch.inference_mode()
def test_sessions_decoder_equals_torch_while_its_cache_grows() -> None:
    model = model_of()
    theirs, mine, other = LlamaDecoder(model), KVCache(2, capacity=4), KVCache(2)
    compiled = GpuLlama(model)
    for size in (3, 1, 1, 30, 1):
        x = torch.randn(size, model.hidden_size, device=DEVICE)
        past = len(mine)
        ours = compiled(x, [(0, past, size)], *mine.extend(size, compiled.empty_keys()))[-1]
        torch.testing.assert_close(ours, theirs(x, other), **CLOSE[torch.float32])


@torch.inference_mode()
def test_a_stream_alone_is_rounded_alike_whatever_the_cache() -> None:
    model = model_of()
    compiled, x = GpuLlama(model), torch.randn(9, model.hidden_size, device=DEVICE)
    small, large = (SlotCache(model, n, 50 * n) for n in (1, 3))
    mine = compiled(x, [(0, 0, 9)], small.keys, small.values)
    other = compiled(x, [(2, 0, 9)], large.keys, large.values)
    torch.testing.assert_close(mine, other, atol=0, rtol=0)


def test_models_that_the_kernels_do_not_know_are_refused() -> None:
    with pytest.raises(CompileError, match=r"float64 in heads of 16"):
        GpuLlama(model_of(dtype=torch.float64))
    with pytest.raises(CompileError, match=r"float32 in heads of 24"):
        GpuLlama(model_of(heads=2, size=24))
    model = model_of()
    model.lm.model.layers[1].mlp.up_proj = nn.Sequential(model.lm.model.layers[1].mlp.up_proj)
    with pytest.raises(CompileError, match="plain linear"):
        GpuLlama(model)
