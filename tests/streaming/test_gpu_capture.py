"""How graphs are made, by a fake: it takes a GPU. ``test_gpu_llama`` runs what is captured."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from proassist_lit.streaming import gpu_llama
from proassist_lit.streaming.compiled import CompileError
from proassist_lit.streaming.gpu_layers import Shape
from proassist_lit.streaming.gpu_llama import LARGE_TILE, SMALL_TILE, GpuLlama


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


class Layers:
    """Those of a backbone whose tiles fit a GPU up to some size."""

    largest = LARGE_TILE

    def __init__(self, model: Any) -> None:
        self.dtype = torch.float32
        self.llama = SimpleNamespace(group=4, kv_heads=1, head_size=16, angles=lambda _, x: (x, x))

    def __len__(self) -> int:
        return 2

    def __call__(self, x: torch.Tensor, places: Any, shape: Shape) -> torch.Tensor:
        if shape.tile_rows > self.largest:
            raise RuntimeError("out of resource: shared memory")
        return x


@pytest.mark.parametrize("largest", [LARGE_TILE, SMALL_TILE])
def test_tiles_are_as_large_as_the_gpu_can_take(
    largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_llama, "GpuLayers", Layers)
    monkeypatch.setattr(Layers, "largest", largest)
    model: Any = SimpleNamespace(device=torch.device("cpu"), hidden_size=8)
    llama = GpuLlama(model)
    llama._try_out()

    keys = [torch.zeros(1, 1, 64, 16)] * 2
    assert len(llama(torch.ones(40, 8), [(0, 0, 40)], keys, keys)) == 40
    assert llama._arrange([(0, 0, 40)], 40)[0].tile_rows == largest
    assert llama._arrange([(0, 0, 4)], 4)[0].tile_rows == SMALL_TILE


def test_a_gpu_that_takes_no_tile_at_all_is_known_beforehand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_llama, "GpuLayers", Layers)
    monkeypatch.setattr(Layers, "largest", 0)
    llama = GpuLlama(cast(Any, SimpleNamespace(device=torch.device("cpu"), hidden_size=8)))
    with pytest.raises(CompileError, match=r"Triton failed \(RuntimeError: out of resource"):
        llama._try_out()
