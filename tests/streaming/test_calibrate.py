from __future__ import annotations

import pytest
import torch

from proassist_lit.streaming.calibrate import (
    FALLBACK,
    MOST_YES,
    best_threshold,
    threshold_candidates,
)
from proassist_lit.streaming.compat import reference_config
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.streaming.policy import NEVER


def f1(theta: float, probs: list[float], labels: list[int]) -> float:
    """F1, or -1 where yes is answered too often."""
    kept = [(p >= theta, y == 1) for p, y in zip(probs, labels, strict=True) if y >= 0]
    if sum(yes for yes, _ in kept) > MOST_YES * sum(truth for _, truth in kept):
        return -1.0
    hits = sum(yes and truth for yes, truth in kept)
    return 2 * hits / (sum(yes for yes, _ in kept) + sum(truth for _, truth in kept))


@pytest.mark.parametrize("seed", range(5))
def test_best_threshold_has_the_best_f1_of_all(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 2, (40,), generator=generator)
    probs = (0.3 * labels + torch.rand(40, generator=generator)).clamp(0, 1)
    probs = (probs * 20).round() / 20  # many ties

    theta = best_threshold(probs, labels)

    grid = [i / 400 for i in range(401)]
    got = f1(theta, probs.tolist(), labels.tolist())
    assert got == pytest.approx(max(f1(t, probs.tolist(), labels.tolist()) for t in grid))


def test_threshold_lies_between_separable_classes() -> None:
    probs = torch.tensor([0.1, 0.2, 0.8, 0.9])

    assert best_threshold(probs, torch.tensor([0, 0, 1, 1])) == pytest.approx(0.5)


def test_frames_that_are_neither_are_left_out() -> None:
    probs = torch.tensor([0.1, 0.2, 0.8, 0.9, 0.99, 0.01])
    labels = torch.tensor([0, 0, 1, 1, -1, -1])

    assert best_threshold(probs, labels) == pytest.approx(0.5)


def test_frames_at_which_nothing_is_decided_are_missed_by_every_threshold() -> None:
    probs = torch.tensor([0.1, 0.2, 0.3, 0.35, 0.4, 0.8, NEVER, NEVER, NEVER])
    labels = torch.tensor([0, 1, 0, 0, 0, 1, 0, 1, 1])

    theta = best_threshold(probs, labels)

    grid = [i / 400 for i in range(401)]
    best = max(f1(t, probs.tolist(), labels.tolist()) for t in grid)
    assert f1(theta, probs.tolist(), labels.tolist()) == pytest.approx(best)
    assert all(0 <= tried <= 1 for tried in threshold_candidates(probs, labels, 5))
    assert theta < 0.2 < 0.4 < best_threshold(probs[:6], labels[:6])


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], [-1, -1, -1]])
def test_a_missing_class_gives_the_fallback(labels: list[int]) -> None:
    assert best_threshold(torch.tensor([0.1, 0.5, 0.9]), torch.tensor(labels)) == FALLBACK


def test_all_probabilities_zero_gives_the_fallback() -> None:
    assert best_threshold(torch.zeros(3), torch.tensor([0, 1, 0])) == FALLBACK


def test_a_model_that_knows_nothing_does_not_always_say_yes() -> None:
    labels = torch.tensor([1] * 4 + [0] * 16)
    probs = torch.linspace(0.4, 0.41, 20)  # the wrong way round: F1 is best at always

    assert int((probs >= best_threshold(probs, labels)).sum()) <= MOST_YES * 4


def test_a_probability_shared_by_too_many_frames_lies_below_the_threshold() -> None:
    assert 0.3 < best_threshold(torch.full((10,), 0.3), torch.tensor([1] + [0] * 9)) < 0.31


def test_a_threshold_above_saturated_probabilities_is_one_for_the_reference_too() -> None:
    probs, labels = torch.tensor([1.0] * 9 + [0.5]), torch.tensor([1] + [0] * 9)

    theta = best_threshold(probs, labels)

    largest = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    assert float(largest) < theta <= 1.0  # of all frames, those with P(speak) = 1 speak
    config = StreamConfig(theta_speak=theta, strategy=Strategy.NONE)
    assert reference_config(config).not_talk_threshold > 0.0  # 0 would be its next token
    assert theta not in threshold_candidates(probs, labels, 5)[1:]


def test_candidates_fire_half_as_often_to_twice_as_often_as_the_best() -> None:
    probs = torch.linspace(0.99, 0.0, 100, dtype=torch.float64)
    labels = torch.tensor([1] * 16 + [0] * 84)

    first, *others = threshold_candidates(probs, labels, 5)

    assert first == best_threshold(probs, labels)
    assert others == sorted(others)
    fired = [int((probs >= theta).sum()) for theta in (first, *others)]
    assert fired == [16, 32, 23, 11, 8]  # 16 times 1, 2, sqrt 2, 1 / sqrt 2, 1 / 2


@pytest.mark.parametrize(
    ("num", "fired"),
    [(2, [40]), (3, [160, 40]), (4, [113, 57, 40]), (5, [160, 113, 57, 40])],
)
def test_any_number_of_candidates_keeps_to_half_and_twice(num: int, fired: list[int]) -> None:
    probs = torch.linspace(0.999, 0.0, 1000, dtype=torch.float64)
    labels = torch.tensor([1] * 80 + [0] * 920)

    _, *others = threshold_candidates(probs, labels, num)

    assert [int((probs >= theta).sum()) for theta in others] == fired  # of 80


def test_candidates_that_decide_alike_are_left_out() -> None:
    probs, labels = torch.tensor([0.9, 0.2, 0.1]), torch.tensor([1, 0, 0])

    first, *others = threshold_candidates(probs, labels, 9)

    assert first == pytest.approx(0.55)
    assert others == [pytest.approx(0.15)]
    assert threshold_candidates(probs, labels, 1) == [first]


def test_candidates_without_both_classes_are_the_fallback() -> None:
    assert threshold_candidates(torch.tensor([0.3]), torch.tensor([0]), 5) == [FALLBACK]


@pytest.mark.parametrize("shift", [-20.0, 30.0])
def test_what_is_no_probability_is_calibrated_likewise(shift: float) -> None:
    """Sums and z-scores: any numbers."""
    values = torch.tensor([0.1, 0.2, 0.8, 0.9, 0.3]) + shift
    labels = torch.tensor([0, 0, 1, 1, 0])

    assert best_threshold(values, labels) == pytest.approx(0.55 + shift, abs=1e-5)
    assert best_threshold(values[:3], labels[:3]) == pytest.approx(0.5 + shift, abs=1e-5)
    same = torch.full((9,), shift)
    assert best_threshold(same, torch.tensor([1] + [0] * 8)) > shift
    all_of_them = best_threshold(values, torch.tensor([1, 0, 1, 1, 1]))
    assert all_of_them < values.min()
