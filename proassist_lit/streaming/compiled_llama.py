"""A Llama-type backbone by compiled kernels, on whatever it lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from torch import Tensor

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.streaming.gpu_llama import GpuLlama
from proassist_lit.streaming.native import NativeLlama


class CompiledLlama(Protocol):
    """The layers of a backbone: ``NativeLlama`` on a CPU, ``GpuLlama`` on a GPU."""

    def empty_keys(self) -> Tensor:
        """(1, heads, 0, size): the shape and type of keys of no token, and of values."""
        ...

    def __call__(
        self,
        inputs_embeds: Tensor,
        runs: Iterable[tuple[int, int, int]],
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
    ) -> Tensor:
        """Feed new tokens of some streams; their keys and values are written in place.

        Args:
            inputs_embeds: (N, D), the new tokens of the first stream, of the second, and so on.
            runs: of each of these streams its slot, tokens held before, new tokens; these sum N.
            keys: of each layer, (slots, heads, capacity, size); with room for the new ones.
            values: of each layer, like the keys.

        Returns:
            (N, D) last hidden states after the final norm.
        """
        ...


def compile_llama(model: AssistantModel) -> CompiledLlama:
    """The layers of a backbone that satisfies ``Llama.fits``, as they are now.

    Args:
        model: in evaluation mode.

    Raises:
        CompileError: not on this machine, or not with these weights.
    """
    return GpuLlama(model) if model.device.type == "cuda" else NativeLlama(model)
