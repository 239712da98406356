"""A Llama-type backbone on a GPU: steps of a few shapes, each captured once as a graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.streaming.compiled import CompileError
from proassist_lit.streaming.gpu_layers import GpuLayers, Places, Shape

MOST_ROWS = 1024
"""Most tokens of one pass: more make the products no faster."""

ROW_STEPS = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 320, 384, 512, 640, 768, MOST_ROWS)
"""Passes are filled up to the next of these, with rows of nobody."""

TILE_STEPS = (1, 2, 4, 8, 16, 64, 256, MOST_ROWS)
"""The same of tiles of attention: those of nobody end at once."""

SMALL_TILE, LARGE_TILE = 16, 64
"""Rows of a product of queries and keys: the fewest that there are, and many."""

Run = tuple[int, int, int]
"""Of a stream its slot, tokens held before, new tokens."""


class GpuLlama:
    """The layers of a backbone that satisfies ``Llama.fits``, in captured graphs.

    A graph replays hundreds of kernels without a word from the host. Weights are shared, but for
    those of queries, keys and values, which are copied as they are now.

    Args:
        model: in evaluation mode, on a GPU. (On a CPU every kernel is launched one by one, which
            Triton's interpreter can do, for tests.)

    Raises:
        CompileError: Triton is not there, or does not know such a model.
    """

    def __init__(self, model: AssistantModel) -> None:
        self._layers = GpuLayers(model)
        self._device, self._is_captured = model.device, model.device.type == "cuda"
        self._group = self._layers.llama.group
        self._x = torch.zeros(
            MOST_ROWS, model.hidden_size, dtype=self._layers.dtype, device=self._device
        )
        self._ints = torch.empty(6 * MOST_ROWS, dtype=torch.int32, device=self._device)
        self._capacity = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._addresses = torch.zeros(len(self._layers), 2, dtype=torch.int64, device=self._device)
        self._pointed_to: list[int] = []
        self._angles = (self._x, self._x)
        self._large_tile = LARGE_TILE
        self._graphs: dict[Shape, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._pool: Any = None  # memory that graphs share
        if self._is_captured:
            self._try_out()

    @torch.inference_mode()
    def _try_out(self) -> None:
        """Feed a token, then several, so that what fails is known before it is relied upon.

        Large tiles of wide heads in float32 want more shared memory than GPUs for workstations
        have; then all are small ones.

        Raises:
            CompileError: Triton failed, for want of a C compiler for instance.
        """
        llama, few = self._layers.llama, SMALL_TILE // self._group
        keys, values = (
            list(self._x.new_zeros(len(self._layers), 1, llama.kv_heads, few + 1, llama.head_size))
            for _ in range(2)
        )
        try:
            self(self._x[:1], [(0, 0, 1)], keys, values)
        except Exception as error:  # Triton raises what its compilers raise
            raise CompileError(f"Triton failed ({type(error).__name__}: {error})") from error
        try:
            self(self._x[: few + 1], [(0, 0, few + 1)], keys, values)
        except Exception:  # and small ones went through
            self._large_tile = SMALL_TILE

    def empty_keys(self) -> Tensor:
        """(1, heads, 0, size): the shape and type of keys of no token, and of values."""
        llama = self._layers.llama
        return self._x.new_empty(1, llama.kv_heads, 0, llama.head_size)

    def __call__(
        self,
        inputs_embeds: Tensor,
        runs: Iterable[Run],
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
    ) -> Tensor:
        """Feed new tokens of some streams; see ``CompiledLlama``."""
        runs = list(runs)
        self._point_to(keys, values)
        out, row = [], 0
        for part in _parts(runs):
            count = sum(one[2] for one in part)
            out.append(self._pass(inputs_embeds[row : row + count], part))
            row += count
        assert row == len(inputs_embeds)
        return out[0] if len(out) == 1 else torch.cat(out)

    def _point_to(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Tell the device where keys and values lie, if that is new."""
        where = [tensor.data_ptr() for tensor in (*keys, *values)]
        capacity = keys[0].shape[2]
        if [*where, capacity] == self._pointed_to:
            return
        assert all(tensor.is_contiguous() for tensor in (*keys, *values))
        pairs = torch.tensor(where).view(2, -1).t()
        self._addresses.copy_(pairs)
        self._capacity.fill_(capacity)
        self._pointed_to = [*where, capacity]
        angles = self._layers.llama.angles(capacity, self._x)
        if angles[0] is not self._angles[0]:
            self._angles = angles
            self._graphs.clear()  # they look the old ones up
            self._pool = None

    def _pass(self, embeds: Tensor, runs: Sequence[Run]) -> Tensor:
        """At most ``MOST_ROWS`` tokens."""
        count = len(embeds)
        shape, ints = self._arrange(runs, count)
        self._x[:count].copy_(embeds)
        self._ints[: len(ints)].copy_(torch.tensor(ints, dtype=torch.int32))
        graph = self._graphs.get(shape)
        if graph is not None:
            graph[0].replay()
            return graph[1][:count].clone()
        out = self._run(shape)  # compiles what is new
        if self._is_captured:
            self._graphs[shape] = self._capture(shape)
        return out[:count]

    def _arrange(self, runs: Sequence[Run], count: int) -> tuple[Shape, list[int]]:
        """Shape of a pass; slots and positions of its rows, and its tiles, in one list.

        A stream that is alone has the same shape whatever the cache: a session and an engine that
        reads a frame again round alike.
        """
        rows = next(step for step in ROW_STEPS if count <= step)
        few = SMALL_TILE // self._group
        tile_rows = SMALL_TILE if all(run[2] <= few for run in runs) else self._large_tile
        tokens = tile_rows // self._group
        tiles: list[int] = []
        slots: list[int] = []
        positions: list[int] = []
        for slot, past, new in runs:
            for first in range(0, new, tokens):
                part = min(tokens, new - first)
                tiles += (slot, len(slots) + first, part, past + first)
            slots += [slot] * new
            positions += range(past, past + new)
        most = -(-rows // tokens)
        if len(runs) > 1:
            most = next(step for step in TILE_STEPS if len(tiles) <= 4 * step)
        empty = rows - count
        slots += [-1] * empty
        positions += [0] * empty
        tiles += (-1, 0, 0, 0) * (most - len(tiles) // 4)
        return Shape(rows, most, tile_rows), slots + positions + tiles

    def _run(self, shape: Shape) -> Tensor:
        rows, tiles = shape.rows, shape.tiles
        places = Places(
            self._addresses, self._capacity, self._ints[:rows], self._ints[rows : 2 * rows],
            self._ints[2 * rows : 2 * rows + 4 * tiles], *self._angles,
        )  # fmt: skip
        return self._layers(self._x[:rows], places, shape)

    def _capture(self, shape: Shape) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """A graph of a pass, and where it leaves its outcome. The pass itself is not run."""
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            # At validation the loaders' thread goes on to pin memory for training, which in CUDA's
            # strictest mode would fail there, and the capture here.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                out = self._run(shape)
            finally:
                graph.capture_end()
        self._pool = graph.pool()
        return graph, out


def _parts(runs: Sequence[Run]) -> list[list[Run]]:
    """``runs`` in parts of at most ``MOST_ROWS`` tokens; a longer run is cut."""
    parts: list[list[Run]] = [[]]
    room = MOST_ROWS
    for slot, past, new in runs:
        while new:
            if not room:
                parts.append([])
                room = MOST_ROWS
            taken = min(new, room)
            parts[-1].append((slot, past, taken))
            past, new, room = past + taken, new - taken, room - taken
    return parts
