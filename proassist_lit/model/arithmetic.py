"""How much arithmetic a training step needs, and how much a device can do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.four_bits import num_weights
from proassist_lit.model.new_rows import EmbeddingRows

PEAK_TFLOPS = {
    "H200 NVL": 835.5,
    "H200": 989.0,
    "H100 PCIe": 756.5,
    "H100 NVL": 835.5,
    "H100": 989.0,
    "A100": 312.0,
}
"""Dense 16-bit operations a second, 10^12, by what a device's name contains; the first that fits.

Source: NVIDIA's data sheets of the three, without sparsity.
"""


def peak_tflops(device_name: str, precision: str) -> float | None:
    """What a device does at most at ``precision``, None where that is not known."""
    if not precision.startswith(("bf16", "16")):
        return None
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in device_name), None)


@dataclass(frozen=True)
class StepArithmetic:
    """Floating-point operations of a step, forward and backward, without what is computed twice.

    Attributes:
        per_token: of the matrices of the layers.
        per_label: of the vocabulary matrix, at a labelled position.
        per_pair: of attention, for a token and one that it sees.

    Source: the counting of PaLM, arXiv:2204.02311, appendix B, but with what is really needed:
    the vocabulary matrix at labelled positions, and no attention to what comes later.
    """

    per_token: float
    per_label: float
    per_pair: float

    @classmethod
    def of(cls, model: AssistantModel) -> StepArithmetic:
        """Of a model; 2 operations for each weight forward, 2 for inputs, 2 for trained weights."""
        decoder, output = model.lm.get_decoder(), model.lm.get_output_embeddings()
        config = decoder.config
        looked_up = {
            id(p)
            for m in decoder.modules() if isinstance(m, nn.Embedding | EmbeddingRows)
            for p in m.parameters()
        }  # fmt: skip
        matrices = [
            p for p in decoder.parameters() if p.ndim == 2 and id(p) not in looked_up
        ]  # biases and norms are not worth counting
        heads = int(config.num_attention_heads)
        size = getattr(config, "head_dim", None) or int(config.hidden_size) // heads
        return cls(
            per_token=_of_products(matrices),
            per_label=_of_products(p for p in output.parameters() if p.ndim == 2),
            per_pair=12.0 * int(config.num_hidden_layers) * heads * int(size),
        )

    def of_batch(self, lengths: Sequence[int], num_labels: int) -> float:
        """Operations for conversations of so many tokens with so many labelled positions."""
        pairs = sum(n * (n + 1) / 2 for n in lengths)
        return self.per_token * sum(lengths) + self.per_label * num_labels + self.per_pair * pairs


def _of_products(matrices: Iterable[nn.Parameter]) -> float:
    """For each weight and token, forward and backward."""
    return float(sum((6 if p.requires_grad else 4) * num_weights(p) for p in matrices))
