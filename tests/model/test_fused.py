from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.llama import modeling_llama

from proassist_lit.model.fused import fuse
from tests.model.tiny_lms import causal_lm


class OnGpu:
    """A Llama that says that it stands on a GPU."""

    def __init__(self, lm: Any) -> None:
        self.config, self.get_decoder = lm.config, lm.get_decoder

    def parameters(self):
        yield type("", (), {"device": torch.device("cuda")})


@pytest.fixture
def liger(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands for Liger, which needs a GPU; notes what it is asked for."""
    asked: list[dict[str, Any]] = []

    def apply(**options: Any) -> None:
        asked.append(options)
        modeling_llama.LlamaRMSNorm = nn.Identity  # as the real one does

    module = ModuleType("liger_kernel.transformers")
    module.apply_liger_kernel_to_llama = apply  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "liger_kernel", ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", module)
    return asked


def test_a_llama_on_a_gpu_is_fused_and_later_models_are_not(liger: list[dict[str, Any]]) -> None:
    norm, lm = modeling_llama.LlamaRMSNorm, OnGpu(causal_lm("Llama"))

    assert fuse(lm)

    assert modeling_llama.LlamaRMSNorm is norm
    (options,) = liger
    assert options["model"] is lm
    assert {name for name, wanted in options.items() if wanted is True} == {"rms_norm", "swiglu"}


def test_on_a_cpu_or_in_another_family_nothing_is_fused(liger: list[dict[str, Any]]) -> None:
    assert not fuse(causal_lm("Llama"))
    assert not fuse(OnGpu(causal_lm("Phi")))
    assert liger == []


def test_without_liger_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", None)

    assert not fuse(OnGpu(causal_lm("Llama")))
