"""Words and timing with the reference as context: VideoLLM-online's teacher-forced metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from proassist_lit.streaming.forced_turns import ForcedTurn

_SUMS = ("perplexity", "correctness", "time_difference_s", "fluency")


class TeacherForcedMetrics(Metric):
    """Means over the turns of the reference; a turn is S frames, then W words.

    ``compute`` returns, under ``forced_...``:

    - ``perplexity`` (LM-PPL): exp(mean cross-entropy of the turn's words);
    - ``correctness`` (LM-correctness): R / W with R the leading words that are predicted right by
      argmax, up to the first that is not;
    - ``time_difference_s``: ``|late_frames| / fps``;
    - ``fluency``: (S + R) / (S + W) on time, (S - d) / (S + W) where the model speaks d frames
      early, (S - 1) / (S + W) where it is late: the share of frames and words that go well in a
      row;
    - ``num_turns``.

    An empty result means that there were no turns. The state are sums, so the numbers are the same
    for any batching and number of ranks.

    Source: VideoLLM-online, arXiv:2406.11816.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    num_turns: Tensor
    sum_perplexity: Tensor
    sum_correctness: Tensor
    sum_time_difference_s: Tensor
    sum_fluency: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("num_turns", default=torch.tensor(0), dist_reduce_fx="sum")
        for name in _SUMS:
            default = torch.tensor(0.0, dtype=torch.float64)
            self.add_state(f"sum_{name}", default=default, dist_reduce_fx="sum")

    def update(self, turns: Sequence[ForcedTurn], fps: float) -> None:
        """Add the turns of a stream.

        Args:
            turns: of the reference.
            fps: frames per second.
        """
        self.num_turns += len(turns)
        for turn in turns:
            self.sum_perplexity += _perplexity(turn.cross_entropy)
            self.sum_correctness += turn.num_right_words / turn.num_words
            self.sum_time_difference_s += abs(turn.late_frames) / fps
            self.sum_fluency += _fluency(turn)

    def compute(self) -> dict[str, Tensor]:
        """() float64 by name; empty without turns."""
        if not int(self.num_turns):
            return {}
        values = {
            f"forced_{name}": getattr(self, f"sum_{name}") / int(self.num_turns) for name in _SUMS
        }
        return values | {"forced_num_turns": self.num_turns.double()}


def _perplexity(cross_entropy: float) -> float:
    """Its exponential, infinite where no float holds it: weights that training has blown up."""
    try:
        return math.exp(cross_entropy)
    except OverflowError:
        return math.inf


def _fluency(turn: ForcedTurn) -> float:
    if turn.late_frames == 0:
        well = turn.num_frames + turn.num_right_words
    elif turn.late_frames < 0:
        well = turn.num_frames + turn.late_frames
    else:
        well = turn.num_frames - 1
    return well / (turn.num_frames + turn.num_words)
