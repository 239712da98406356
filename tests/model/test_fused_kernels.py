"""Liger's kernels against torch: on a GPU, or by Triton's interpreter where there is none.

pip install triton liger-kernel
TRITON_INTERPRET=1 python -m pytest tests/model/test_fused_kernels.py
"""

from __future__ import annotations

import copy
import os
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from proassist_lit.model.fused import LLAMAS, fuse
from proassist_lit.model.lora import add_lora
from tests.model.adapted import LORA
from tests.model.tiny_lms import causal_lm

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

if DEVICE.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no GPU, and TRITON_INTERPRET=1 is not set", allow_module_level=True)

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
interpreter = pytest.importorskip("triton.runtime.interpreter")
rms_norm = pytest.importorskip("liger_kernel.ops.rms_norm")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the interpreter


@triton.jit
def reciprocal_root(x):
    return 1.0 / tl.sqrt(x)


@pytest.fixture(autouse=True)
def what_the_interpreter_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows no functions of libdevice, and gives kernels numbers that know no type."""
    if DEVICE.type == "cuda":
        return
    convert = interpreter._implicit_cvt

    def with_floats(value: Any) -> Any:
        if type(value) is not float:
            return convert(value)
        handle = interpreter.TensorHandle(np.array([value], dtype=np.float32), tl.float32)
        return tl.tensor(handle, tl.float32)

    monkeypatch.setattr(interpreter, "_implicit_cvt", with_floats)
    monkeypatch.setattr(rms_norm, "rsqrt", reciprocal_root)


def fused(lm: Any, monkeypatch: pytest.MonkeyPatch) -> bool:
    """``fuse``, which goes by where the weights stand."""
    with monkeypatch.context() as patch:
        on_gpu = SimpleNamespace(device=torch.device("cuda"))
        patch.setattr(lm, "parameters", lambda: iter([on_gpu]))
        return fuse(lm)


def outcome(lm: Any) -> list[Tensor]:
    """Logits and gradients."""
    logits = lm(torch.arange(12, device=DEVICE)[None]).logits
    logits.square().mean().backward()
    return [logits, *(p.grad for p in lm.parameters() if p.requires_grad)]


@pytest.mark.parametrize("with_additions", [False, True])
@pytest.mark.parametrize("kind", LLAMAS)
def test_a_fused_model_computes_what_it_did(
    kind: str, with_additions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = causal_lm(kind.capitalize()).to(DEVICE)
    if with_additions:
        add_lora(lm, LORA)
    plain = copy.deepcopy(lm)
    classes = dict(vars(sys.modules[type(lm).__module__]))

    assert fused(lm, monkeypatch)

    assert type(lm.model.norm).__name__ == type(plain.model.norm).__name__
    ways = [lm.model.norm.forward, lm.model.layers[0].mlp.forward]
    assert all(way.__func__.__module__.startswith("liger_kernel.") for way in ways)
    assert vars(sys.modules[type(lm).__module__]) == classes
    for mine, theirs in zip(outcome(lm), outcome(plain), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
