"""Which generated utterance answers which reference utterance: a windowed assignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from proassist_lit.errors import ConfigError
from proassist_lit.metrics.similarity import Similarity

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_PAIRS_PER_BLOCK = 8192  # bounds the memory of scoring: this many vector pairs at a time


@dataclass(kw_only=True)
class MatchConfig:
    """Costs and thresholds of the matching."""

    distance_factor: float = 0.3
    """Cost of the largest distance in time, where 1 is the cost of unrelated words; >= 0."""

    distance_power: float = 1.5
    """Power of the relative distance in time; > 0."""

    semantic_threshold: float = 0.5
    """Least cosine at which a matched pair says the same; in [-1, 1]."""

    compat_abs_cosine: bool = False
    """Use the absolute value of the cosine, as the reference does: opposites look alike."""

    compat_drop_zero_cost: bool = False
    """Forbid pairs whose cost is exactly 0, as the reference's sparse matrix does by accident.

    Here that is every pair of equal texts on one frame. In the reference it is those of them
    whose cosine its float32 arithmetic happens to round to 1.
    """

    def __post_init__(self) -> None:
        faults = []
        if self.distance_factor < 0:
            faults.append(f"distance_factor must be >= 0, got {self.distance_factor}")
        if self.distance_power <= 0:
            faults.append(f"distance_power must be > 0, got {self.distance_power}")
        if not -1 <= self.semantic_threshold <= 1:
            faults.append(f"semantic_threshold must be in [-1, 1], got {self.semantic_threshold}")
        if faults:
            raise ConfigError(f"matching: {'; '.join(faults)}. The defaults are 0.3, 1.5 and 0.5.")


@dataclass(frozen=True)
class MatchedPair:
    """A generated utterance and the reference it answers.

    Attributes:
        gen_frame: where the generated utterance stands in the transcript, from 0.
        ref_frame: where the reference utterance stands.
        score: semantic similarity, in [-1, 1]; exactly 1 for equal texts.
        cost: ``1 - score`` plus the cost of the distance in time.
    """

    gen_frame: int
    ref_frame: int
    score: float
    cost: float


@dataclass(frozen=True, kw_only=True)
class UtteranceMatch:
    """What became of every utterance of a stream.

    Attributes:
        pairs: every pair found, in order of ``gen_frame``, whatever its score.
        missed: frames of reference utterances that nobody answered.
        redundant: frames of generated utterances that answer nothing.
        semantic_threshold: score from which on (>=) a pair counts as matched.
        total_cost: cost of the whole assignment, silent frames included.
    """

    pairs: tuple[MatchedPair, ...]
    missed: tuple[int, ...]
    redundant: tuple[int, ...]
    semantic_threshold: float
    total_cost: float

    @property
    def matched(self) -> tuple[MatchedPair, ...]:
        """Pairs that say the same."""
        return tuple(pair for pair in self.pairs if pair.score >= self.semantic_threshold)

    @property
    def mismatched(self) -> tuple[MatchedPair, ...]:
        """Pairs in time whose words differ too much."""
        return tuple(pair for pair in self.pairs if pair.score < self.semantic_threshold)


UNSCORED = UtteranceMatch(pairs=(), missed=(), redundant=(), semantic_threshold=0.0, total_cost=0.0)
"""Of a stream without words (``stream.words=false``): nothing was to be matched."""


@dataclass(frozen=True)
class CandidateEdges:
    """Frames that each generated utterance may take. G utterances, W frames in the window.

    Attributes:
        gen_frames: (G,) where the utterances stand, ascending.
        frames: (G, W) candidate frame; may lie outside of the stream where ``costs`` is infinite.
        costs: (G, W) cost of taking it, inf where that is not allowed.
        scores: (G, W) semantic score, nan at silent frames.
    """

    gen_frames: Ints
    frames: Ints
    costs: Floats
    scores: Floats


def candidate_edges(
    gens: Sequence[str],
    refs: Sequence[str],
    *,
    window_frames: tuple[int, int],
    similarity: Similarity | None,
    config: MatchConfig,
) -> CandidateEdges:
    """List what each generated utterance may be assigned to, and at which cost.

    ``cost(i, j) = semantic + factor * (|i - j| / max(|l|, |r|)) ** power`` with ``semantic =
    1 - cosine`` where frame j has a reference utterance and 1 where it is silent. Arguments as
    for ``match_utterances``. Linear in the number of generated utterances.
    """
    num_frames, (left, right) = len(refs), window_frames
    gen_frames = np.array([i for i, text in enumerate(gens) if text], dtype=np.int64)  # (G,)
    talks = np.array([bool(text) for text in refs], dtype=bool)  # (F,)
    offsets = np.arange(left, right + 1, dtype=np.int64)  # (W,)
    frames = gen_frames[:, None] + offsets  # (G, W)

    inside = (frames >= 0) & (frames < num_frames)
    both = inside & talks[np.where(inside, frames, 0)] if num_frames else inside
    scores = np.full(frames.shape, np.nan)
    if both.any():
        rows, cols = np.nonzero(both)
        scores[rows, cols] = _semantic_scores(
            [gens[i] for i in gen_frames[rows]],
            [refs[j] for j in frames[rows, cols]],
            similarity,
            absolute=config.compat_abs_cosine,
        )

    reach = max(abs(left), abs(right), 1)
    time_costs = config.distance_factor * (np.abs(offsets) / reach) ** config.distance_power
    costs = np.where(both, 1.0 - np.where(both, scores, 0.0), 1.0) + time_costs
    costs[~inside] = np.inf
    if config.compat_drop_zero_cost:
        costs[costs == 0.0] = np.inf
    return CandidateEdges(gen_frames, frames, costs, scores)


def match_utterances(
    gens: Sequence[str],
    refs: Sequence[str],
    *,
    window_frames: tuple[int, int],
    similarity: Similarity | None,
    config: MatchConfig | None = None,
) -> UtteranceMatch:
    """Match generated to reference utterances at the least total cost.

    Each generated utterance takes exactly one frame of its window, no frame is taken twice. One
    that takes a silent frame is redundant; so is one whose window holds no free frame at all
    (possible only where the window leaves its own frame out).

    Args:
        gens: (F,) what was generated at each frame, empty where silent.
        refs: (F,) what the reference says at each frame, empty where silent.
        window_frames: (l, r); a generation at frame i may take the frames i + l .. i + r.
        similarity: embeds the texts; None: every pair of utterances has score 1.
        config: costs and thresholds; None for the defaults.

    Raises:
        ValueError: ``gens`` and ``refs`` differ in length, or l > r.

    Source: ProAssist, arXiv:2506.05904. Its released matching loses pairs of cost 0 and takes the
    absolute cosine; both stay available in ``MatchConfig``. It solves one dense problem over all
    pairs of frames; this one is sparse and splits where no windows overlap.
    """
    if len(gens) != len(refs) or window_frames[0] > window_frames[1]:
        raise ValueError(
            f"match_utterances: gens and refs must be of one length and l <= r, got {len(gens)} "
            f"and {len(refs)} frames and (l, r) = {tuple(window_frames)}; give one text a frame."
        )
    config = config or MatchConfig()
    edges = candidate_edges(
        gens, refs, window_frames=window_frames, similarity=similarity, config=config
    )
    choice = _assign(edges)  # (G,) column in the window, -1: none

    pairs: list[MatchedPair] = []
    redundant: list[int] = []
    total_cost = 0.0
    for row, (gen_frame, column) in enumerate(zip(edges.gen_frames, choice, strict=True)):
        cost = float(edges.costs[row, column]) if column >= 0 else 0.0
        total_cost += cost
        if column >= 0 and not np.isnan(edges.scores[row, column]):
            ref_frame, score = int(edges.frames[row, column]), float(edges.scores[row, column])
            pairs.append(MatchedPair(int(gen_frame), ref_frame, score, cost))
        else:
            redundant.append(int(gen_frame))
    answered = {pair.ref_frame for pair in pairs}
    return UtteranceMatch(
        pairs=tuple(pairs),
        missed=tuple(j for j, text in enumerate(refs) if text and j not in answered),
        redundant=tuple(redundant),
        semantic_threshold=config.semantic_threshold,
        total_cost=total_cost,
    )


def precision_recall_f1(
    num_right: float, num_predicted: float, num_reference: float
) -> tuple[float, float, float]:
    """Precision, recall and F1 from counts.

    With nothing predicted and nothing to predict all three are 1; where only one of the two is
    empty they are 0.
    """
    if num_predicted == 0 and num_reference == 0:
        return 1.0, 1.0, 1.0
    return (
        num_right / num_predicted if num_predicted else 0.0,
        num_right / num_reference if num_reference else 0.0,
        2 * num_right / (num_predicted + num_reference),
    )


def _semantic_scores(
    gens: list[str], refs: list[str], similarity: Similarity | None, *, absolute: bool
) -> Floats:
    """(P,) cosine of each of P pairs of texts; exactly 1 where the two are equal."""
    if similarity is None:
        return np.ones(len(gens))
    texts = list(dict.fromkeys([*gens, *refs]))
    index = {text: k for k, text in enumerate(texts)}
    vectors = similarity(texts).numpy()  # (n, D)
    left = np.array([index[text] for text in gens])
    right = np.array([index[text] for text in refs])
    cosines = np.empty(len(gens))
    for start in range(0, len(gens), _PAIRS_PER_BLOCK):
        block = slice(start, start + _PAIRS_PER_BLOCK)
        cosines[block] = np.einsum("pd,pd->p", vectors[left[block]], vectors[right[block]])
    if absolute:
        cosines = np.abs(cosines)
    # Rounding of a unit vector's product with itself must not make a perfect answer cost something.
    return np.where(left == right, 1.0, np.clip(cosines, -1.0, 1.0))


def _assign(edges: CandidateEdges) -> Ints:
    """(G,) the column of its window each utterance takes in the cheapest assignment; -1: none."""
    num_gens = len(edges.gen_frames)
    if num_gens == 0:
        return np.zeros(0, dtype=np.int64)
    # The windows are intervals of one length: two neighbours compete only if theirs overlap, and
    # runs of overlapping windows are the connected components.
    gaps = np.flatnonzero(edges.frames[1:, 0] > edges.frames[:-1, -1]) + 1
    bounds = [0, *gaps.tolist(), num_gens]
    # A full assignment surely exists where each utterance may take its own frame.
    own = int(edges.gen_frames[0] - edges.frames[0, 0])  # column of the own frame
    num_columns = edges.costs.shape[1]
    has_own = 0 <= own < num_columns and bool(np.isfinite(edges.costs[:, own]).all())
    return np.concatenate(
        [
            _assign_component(edges.frames[a:b], edges.costs[a:b], with_exits=not has_own)
            for a, b in pairwise(bounds)
        ]
    )


def _assign_component(frames: Ints, costs: Floats, *, with_exits: bool) -> Ints:
    """Assign utterances whose windows overlap; ``frames`` and ``costs`` (G, W), result (G,)."""
    num_rows = len(frames)
    allowed = np.isfinite(costs)
    if num_rows == 1:
        return np.array([costs[0].argmin() if allowed.any() else -1], dtype=np.int64)
    first = int(frames[0, 0])
    num_cols = int(frames[-1, -1]) - first + 1
    rows, _ = np.nonzero(allowed)
    cols = frames[allowed] - first
    # The solver takes a cost of 0 for a missing edge. Every utterance takes exactly one frame, so
    # adding 1 to all costs leaves the optimum where it is.
    weights = costs[allowed] + 1.0
    num_exits = num_rows if with_exits else 0
    if with_exits:
        # A way out for each, dearer than all frames together: used as rarely as possible.
        exits = np.full(num_rows, 1.0 + num_rows * float(weights.max(initial=1.0)))
        rows = np.concatenate([rows, np.arange(num_rows)])
        cols = np.concatenate([cols, num_cols + np.arange(num_rows)])
        weights = np.concatenate([weights, exits])
    graph = csr_array((weights, (rows, cols)), shape=(num_rows, num_cols + num_exits))
    taken_rows, taken_cols = min_weight_full_bipartite_matching(graph)
    choice = np.full(num_rows, -1, dtype=np.int64)
    took_frame = taken_cols < num_cols
    taken_rows, taken_cols = taken_rows[took_frame], taken_cols[took_frame]
    choice[taken_rows] = taken_cols - (frames[taken_rows, 0] - first)
    return choice
