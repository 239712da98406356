"""Was each decision right, frame by frame: scores of the speak and the dst head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
)
from torchmetrics.utilities import dim_zero_cat

from proassist_lit.errors import ConfigError
from proassist_lit.metrics.matching import precision_recall_f1
from proassist_lit.types import Transcript

HEADS = ("speak", "dst")

_BELOW_ONE = 1 - 2**-24
"""The greatest float32 below 1."""


class FrameDecisionMetrics(Metric):
    """Scores of one head's decisions at the exact frame.

    Counted are the frames whose label is 0 or 1 and at which the head gave a probability; frames
    that are neither, and streams without the head, are left out. ``compute`` returns, under
    ``speak_...`` or ``dst_...``:

    - ``precision, recall, f1`` of the decisions as they were made (whatever the policy);
    - ``balanced_accuracy`` mean over the classes that occur of the share decided right;
    - ``ap`` average precision and ``auroc``, of the probabilities, exact; left out unless both
      classes occur;
    - ``ece`` expected calibration error of the probability: over ``num_bins`` equal bins, mean
      distance of mean probability and share of positives, weighted by frames;
    - ``num_frames, num_positive``.

    An empty result means that no frame was counted. Counts are summed; probabilities are
    gathered, since ranking needs all of them.

    Args:
        head: ``speak`` or ``dst``.
        num_bins: bins of the calibration error; at least 1.

    Raises:
        ConfigError: ``head`` or ``num_bins`` is none of these.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    num_true_pos: Tensor
    num_false_pos: Tensor
    num_true_neg: Tensor
    num_false_neg: Tensor
    probs: list[Tensor] | Tensor  # each (n,) float32
    labels: list[Tensor] | Tensor  # each (n,) float32, 0 or 1

    def __init__(self, head: str = "speak", *, num_bins: int = 15) -> None:
        super().__init__()
        if head not in HEADS or num_bins < 1:
            raise ConfigError(
                f"FrameDecisionMetrics: head must be one of {HEADS} and num_bins at least 1, got "
                f"{head!r} and {num_bins}; FrameDecisionMetrics('speak') is usual."
            )
        self.head = head
        self.num_bins = num_bins
        for name in ("num_true_pos", "num_false_pos", "num_true_neg", "num_false_neg"):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")
        # float32 also for the labels: a rank without data gathers an empty tensor of that type.
        self.add_state("probs", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, transcripts: Sequence[Transcript]) -> None:
        """Add streams."""
        probs: list[float] = []
        labels: list[int] = []
        decisions: list[bool] = []
        for transcript in transcripts:
            for frame, reference in zip(transcript.frames, transcript.references, strict=True):
                speak = self.head == "speak"
                label = reference.speak_label if speak else reference.dst_label
                prob = frame.speak_prob if speak else frame.dst_prob
                if label is not None and prob is not None:
                    probs.append(prob)
                    labels.append(label)
                    decisions.append(frame.speak if speak else frame.dst)
        if not probs:
            return
        is_pos = torch.tensor(labels, device=self.device) == 1  # (n,)
        fired = torch.tensor(decisions, device=self.device)  # (n,)
        self.num_true_pos += (fired & is_pos).sum()
        self.num_false_pos += (fired & ~is_pos).sum()
        self.num_true_neg += (~fired & ~is_pos).sum()
        self.num_false_neg += (~fired & is_pos).sum()
        assert isinstance(self.probs, list)
        assert isinstance(self.labels, list)
        self.probs.append(torch.tensor(probs, dtype=torch.float32, device=self.device))
        self.labels.append(is_pos.float())

    def compute(self) -> dict[str, Tensor]:
        """() float64 by name; keys that mean nothing for the data are left out."""
        tp, fp = int(self.num_true_pos), int(self.num_false_pos)
        tn, fn = int(self.num_true_neg), int(self.num_false_neg)
        num_pos, num_neg = tp + fn, tn + fp
        if num_pos + num_neg == 0:
            return {}
        precision, recall, f1 = precision_recall_f1(tp, tp + fp, num_pos)
        rates = [right / n for right, n in ((tp, num_pos), (tn, num_neg)) if n]
        probs, labels = dim_zero_cat(self.probs), dim_zero_cat(self.labels).long()
        values: dict[str, float | Tensor] = {
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "balanced_accuracy": sum(rates) / len(rates),
            # torchmetrics has a bin of its own for a probability of 1, as sure heads have it.
            "ece": binary_calibration_error(
                probs.clamp(max=_BELOW_ONE), labels, n_bins=self.num_bins, norm="l1"
            ),
            "num_frames": num_pos + num_neg,
            "num_positive": num_pos,
        }
        if num_pos and num_neg:
            values["ap"] = binary_average_precision(probs, labels)
            values["auroc"] = binary_auroc(probs, labels)
        return {
            f"{self.head}_{name}": torch.tensor(float(value), dtype=torch.float64)
            for name, value in values.items()
        }
