"""How a graph is captured, by a fake: it takes a GPU. ``test_gpu_llama`` runs what is captured."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from proassist_lit.streaming.gpu_layers import Shape
from proassist_lit.streaming.gpu_llama import GpuLlama


class Graph:
    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []

    def capture_begin(self, **how: Any) -> None:
        self.begun.append(how)

    def capture_end(self) -> None:
        pass

    def pool(self) -> str:
        return "memory"


def test_what_other_threads_do_meanwhile_ends_no_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, fake in {
        "synchronize": lambda device: None, "CUDAGraph": Graph,
        "Stream": lambda device: None, "stream": lambda stream: nullcontext(),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, fake)
    out = torch.zeros(1)
    monkeypatch.setattr(GpuLlama, "_run", lambda self, shape: out)
    llama: Any = GpuLlama.__new__(GpuLlama)
    llama._device, llama._pool = torch.device("cpu"), None

    graphs = [llama._capture(Shape(1, 1, 16)) for _ in range(2)]

    common = {"capture_error_mode": "thread_local"}
    begun: Any = [graph.begun for graph, _ in graphs]
    assert begun == [[{"pool": None, **common}], [{"pool": "memory", **common}]]
    assert all(found is out for _, found in graphs)
