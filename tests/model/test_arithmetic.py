from __future__ import annotations

import pytest

from proassist_lit.model.arithmetic import StepArithmetic, peak_tflops
from proassist_lit.model.config import LoraConfig
from proassist_lit.model.lora import add_lora
from tests.fakes import tiny_model


def test_operations_of_a_step_by_hand() -> None:
    found = StepArithmetic.of(tiny_model())
    # two layers: queries and outputs 16 x 16, keys and values 16 x 8, three of 16 x 24
    matrices = 2 * (2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 24)

    assert found == StepArithmetic(
        per_token=6.0 * matrices, per_label=6.0 * 128 * 16, per_pair=12.0 * 2 * 2 * 8
    )
    want = 6 * matrices * 5 + 6 * 128 * 16 * 2 + 12 * 2 * 2 * 8 * (3 + 6)
    assert found.of_batch([2, 3], 2) == want


def test_frozen_weights_need_no_gradient_of_their_own() -> None:
    model = tiny_model()
    trained = StepArithmetic.of(model)
    model.lm.requires_grad_(False)
    frozen = StepArithmetic.of(model)

    assert frozen.per_token == pytest.approx(trained.per_token * 4 / 6)
    assert frozen.per_label == pytest.approx(trained.per_label * 4 / 6)


def test_additions_are_trained_beside_frozen_weights_and_rows_are_looked_up() -> None:
    model = tiny_model()
    plain = StepArithmetic.of(model)
    add_lora(model.lm, LoraConfig(rank=2, alpha=4), [5, 6, 7])
    found = StepArithmetic.of(model)

    # queries and outputs 16 -> 16, keys and values 16 -> 8, three between 16 and 24, by two layers
    additions = 2 * 2 * (2 * (16 + 16) + 2 * (16 + 8) + 3 * (16 + 24))
    assert found.per_token == pytest.approx(plain.per_token * 4 / 6 + 6 * additions)
    assert found.per_label == pytest.approx(plain.per_label * 4 / 6 + 6 * 3 * 16)


@pytest.mark.parametrize(
    ("device", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16-mixed", 989.0),
        ("NVIDIA H100 PCIe", "bf16-true", 756.5),
        ("NVIDIA H200", "16-mixed", 989.0),
        ("NVIDIA A100-SXM4-80GB", "bf16-mixed", 312.0),
        ("NVIDIA H100 80GB HBM3", "32-true", None),
        ("NVIDIA GeForce RTX 4090", "bf16-mixed", None),
    ],
)
def test_peak_is_known_of_some_devices_in_sixteen_bits(
    device: str, precision: str, peak: float | None
) -> None:
    assert peak_tflops(device, precision) == peak
