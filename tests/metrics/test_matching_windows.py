from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from proassist_lit.errors import ConfigError
from proassist_lit.metrics.match_windows import (
    DEFAULT_WINDOW,
    MatchWindow,
    check_windows,
    match_window,
)
from proassist_lit.metrics.matching import MatchConfig, match_utterances, precision_recall_f1
from proassist_lit.metrics.similarity import HashedWordSimilarity


class LetterVectors:
    """Unit vectors in the plane, one direction a letter: cosines of every size and sign."""

    name = "letters"

    def __call__(self, texts: Sequence[str]) -> Tensor:
        angles = torch.tensor([(ord(text[0]) - ord("a")) * 0.7 for text in texts])
        return torch.stack([angles.cos(), angles.sin()], dim=-1)


def pairs(match) -> list[tuple[int, int]]:
    return [(pair.gen_frame, pair.ref_frame) for pair in match.pairs]


def dense_optimum(
    gens: list[str], refs: list[str], window: tuple[int, int], config: MatchConfig
) -> float:
    """Total cost of the best assignment, from the dense problem over all pairs of frames."""
    num_frames, (left, right) = len(gens), window
    similarity = LetterVectors()
    rows = [i for i, text in enumerate(gens) if text]
    cost = np.full((len(rows), num_frames), np.inf)
    for row, i in enumerate(rows):
        for j in range(num_frames):
            if left <= j - i <= right:
                semantic = 1.0
                if refs[j]:
                    cosine = float(similarity([gens[i]])[0] @ similarity([refs[j]])[0])
                    semantic = 1 - (abs(cosine) if config.compat_abs_cosine else cosine)
                distance = abs(i - j) / max(abs(left), abs(right), 1)
                cost[row, j] = semantic + 0.3 * distance**1.5
    taken = linear_sum_assignment(cost)
    return float(cost[taken].sum())


streams = st.lists(
    st.tuples(st.sampled_from(["", "", "a", "b", "c", "d"]), st.sampled_from(["", "", "a", "c"])),
    min_size=1,
    max_size=24,
)


@settings(max_examples=150, deadline=None)
@given(stream=streams, left=st.integers(-4, 0), right=st.integers(0, 5), absolute=st.booleans())
def test_match_is_the_dense_optimum(
    stream: list[tuple[str, str]], left: int, right: int, absolute: bool
) -> None:
    gens, refs = [g for g, _ in stream], [r for _, r in stream]
    config = MatchConfig(compat_abs_cosine=absolute)
    match = match_utterances(
        gens, refs, window_frames=(left, right), similarity=LetterVectors(), config=config
    )
    expected = dense_optimum(gens, refs, (left, right), config)
    assert match.total_cost == pytest.approx(expected, abs=1e-5)
    # Every utterance has exactly one fate.
    gen_frames = sorted([*(p.gen_frame for p in match.pairs), *match.redundant])
    ref_frames = sorted([*(p.ref_frame for p in match.pairs), *match.missed])
    assert gen_frames == [i for i, text in enumerate(gens) if text]
    assert ref_frames == [i for i, text in enumerate(refs) if text]
    assert all(left <= p.ref_frame - p.gen_frame <= right for p in match.pairs)


def test_perfect_pair_is_not_lost_though_its_cost_is_zero() -> None:
    texts = ["", "a", "", "b"]
    arguments = {"window_frames": (-2, 4), "similarity": LetterVectors()}
    match = match_utterances(texts, texts, **arguments)
    assert pairs(match) == [(1, 1), (3, 3)]
    assert [pair.score for pair in match.pairs] == [1.0, 1.0]
    assert match.total_cost == 0.0
    assert (match.missed, match.redundant) == ((), ())

    config = MatchConfig(compat_drop_zero_cost=True)
    lost = match_utterances(texts, texts, **arguments, config=config)
    assert (1, 1) not in pairs(lost)


def test_opposites_mismatch_unless_the_absolute_cosine_is_asked_for() -> None:
    class Opposites:
        name = "opposites"

        def __call__(self, texts: Sequence[str]) -> Tensor:
            return torch.tensor([[1.0 if text == "yes" else -1.0, 0.0] for text in texts])

    # Signed, the pair costs 2, so the silent frame beside it is cheaper.
    gens, refs = ["yes", "", ""], ["no", "", ""]
    arguments = {"window_frames": (-1, 2), "similarity": Opposites()}
    assert match_utterances(gens, refs, **arguments).redundant == (0,)
    config = MatchConfig(compat_abs_cosine=True)
    match = match_utterances(gens, refs, **arguments, config=config)
    assert [pair.score for pair in match.matched] == [1.0]


def test_score_at_the_threshold_is_a_match() -> None:
    class Half:
        name = "half"

        def __call__(self, texts: Sequence[str]) -> Tensor:
            right = torch.tensor([0.5, 0.75**0.5])
            return torch.stack([torch.tensor([1.0, 0.0]) if t == "g" else right for t in texts])

    arguments = {"window_frames": (0, 0), "similarity": Half()}
    match = match_utterances(["g"], ["r"], **arguments)
    assert (len(match.matched), len(match.mismatched)) == (1, 0)
    config = MatchConfig(semantic_threshold=0.51)
    match = match_utterances(["g"], ["r"], **arguments, config=config)
    assert (len(match.matched), len(match.mismatched)) == (0, 1)


def test_a_generation_takes_one_frame_and_no_frame_is_taken_twice() -> None:
    # Three generations, one reference: two of them stay over, on silent frames of their own.
    match = match_utterances(
        ["a", "a", "a"], ["", "a", ""], window_frames=(-1, 1), similarity=LetterVectors()
    )
    assert pairs(match) == [(1, 1)]
    assert match.redundant == (0, 2)
    assert match.total_cost == pytest.approx(2.0)


def test_a_window_that_leaves_its_own_frame_out_may_hold_no_frame_at_all() -> None:
    arguments = {"window_frames": (1, 1), "similarity": LetterVectors()}
    # Frame 1 is the only one for frame 0; frame 2 has none.
    match = match_utterances(["a", "", "a"], ["", "a", "a"], **arguments)
    assert pairs(match) == [(0, 1)]
    assert match.redundant == (2,)
    assert match.missed == (2,)
    # Windows that overlap are solved together: three utterances, but one frame for all of them.
    arguments["window_frames"] = (1, 3)
    match = match_utterances(["", "a", "a", "a"], ["", "", "", "a"], **arguments)
    assert pairs(match) == [(2, 3)]
    assert match.redundant == (1, 3)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match=r"got 1 and 2 frames and \(l, r\) = \(0, 0\)"):
        match_utterances(["a"], ["", ""], window_frames=(0, 0), similarity=None)


def test_window_in_frames_is_cut_towards_zero() -> None:
    assert MatchWindow(-2.5, 3.5).frames(1.5) == (-3, 5)  # -3.75 and 5.25
    assert MatchWindow(-4.1, 4.1).frames(30) == (-123, 123)  # 4.1 * 30 is 122.99999999999999
    assert MatchWindow(0.0, 0.0).frames(30) == (0, 0)
    with pytest.raises(ConfigError, match=r"start_s must not be after end_s, got 2\.0 s and 1\.0"):
        MatchWindow(2.0, 1.0)


@pytest.mark.parametrize("bounds", [(-math.inf, 2.0), (-1.0, math.inf), (math.nan, 2.0)])
def test_windows_without_a_limit_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"must be finite.* a large number of seconds sets no"):
        MatchWindow(*bounds)
    assert MatchWindow(-1e9, 1e9).frames(30) == (-30 * 10**9, 30 * 10**9)


def test_window_of_a_data_set() -> None:
    assert match_window("toy") == MatchWindow(-1.0, 2.0)
    assert match_window("captaincook4d") == MatchWindow(-2.0, 4.0)
    assert match_window("wtag/narration_train") == DEFAULT_WINDOW
    assert match_window("my own") == DEFAULT_WINDOW
    mine = {"toy": MatchWindow(0.0, 1.0)}
    assert match_window("toy/dialog", mine) == MatchWindow(0.0, 1.0)
    assert match_window("wtag", mine) == MatchWindow(-3.0, 6.0)


def test_windows_of_data_sets_that_are_not_there_are_refused() -> None:
    check_windows(["tea", "tea/dialog", "wtag"], {"tea/dialog", "coffee"})  # wtag: built in
    with pytest.raises(ConfigError, match=r"no data set 'Tea' in .* nearest is 'tea'\.") as error:
        check_windows(["tea", "Tea", "coffe"], {"tea/dialog", "coffee"})
    assert "no data set 'coffe' in the data; the nearest is 'coffee'." in str(error.value)


def test_config_faults_are_raised_together() -> None:
    with pytest.raises(ConfigError, match=r"got -1.*got 0.*got 2.*defaults are"):
        MatchConfig(distance_factor=-1, distance_power=0, semantic_threshold=2)


def test_precision_recall_f1_with_nothing_to_count() -> None:
    assert precision_recall_f1(0, 0, 0) == (1.0, 1.0, 1.0)
    assert precision_recall_f1(0, 3, 0) == (0.0, 0.0, 0.0)
    assert precision_recall_f1(0, 0, 3) == (0.0, 0.0, 0.0)
    assert precision_recall_f1(1, 2, 4) == (0.5, 0.25, 2 / 6)


@pytest.mark.parametrize("every", [1, 17])
def test_a_long_stream_is_matched_within_two_seconds(every: int) -> None:
    """Every frame spoken is the worst case: all windows overlap and make one problem."""
    num_frames = 10_000
    gens = [f"step {i % 50}" if i % every == 0 else "" for i in range(num_frames)]
    refs = [f"step {i % 50} now" if i % 19 == 0 else "" for i in range(num_frames)]
    start = time.process_time()
    match = match_utterances(gens, refs, window_frames=(-4, 8), similarity=HashedWordSimilarity())
    assert time.process_time() - start < 2.0
    assert len(match.pairs) > 100
