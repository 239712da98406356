"""Did the assistant say the right things at the right times: scores of whole utterances."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.matching import UtteranceMatch, precision_recall_f1
from proassist_lit.types import Transcript

_COUNTS = (
    "num_matched",
    "num_mismatched",
    "num_missed",
    "num_redundant",
    "num_empty",
    "num_keyword_references",
    "num_keyword_matched",
    "num_content_right",
)


def holds_keywords(text: str, keywords: Sequence[str]) -> bool:
    """Whether ``text`` holds every keyword as a whole word (or phrase), whatever the case."""
    words = " ".join(text.split())
    return all(
        re.search(rf"(?<!\w){re.escape(' '.join(keyword.split()))}(?!\w)", words, re.IGNORECASE)
        for keyword in keywords
    )


class UtteranceMetrics(Metric):
    """Precision, recall and more of utterances, generated ones being matched to references.

    A reference utterance is a frame whose reference has text; a generated one a frame at which
    the assistant decided to speak and wrote text. A decision followed by no words is not an
    utterance (nobody hears it): it appears in ``num_empty`` and in the frame metrics.

    With M all pairs (matched: score >= threshold, mismatched: below), ``compute`` returns, each
    under ``utterance_...`` (content accuracy without a prefix):

    - ``precision`` matched / (M + redundant), ``recall`` matched / (M + missed), ``f1``,
      ``jaccard`` matched / (M + missed + redundant);
    - ``missing_rate`` missed / (M + missed), ``redundant_rate`` redundant / (M + redundant);
    - ``time_difference_s`` mean absolute distance of matched pairs, ``semantic_score`` their mean
      score; left out where nothing matched;
    - ``content_accuracy`` share of matched pairs whose text holds all keywords of the reference,
      over references that have keywords; 0 where none of these is matched, left out where no
      reference has any;
    - ``num_matched, num_mismatched, num_missed, num_redundant, num_empty``.

    With neither generated nor reference utterances precision, recall, F1 and Jaccard are 1. Where
    the source does not know what to do (``Reference.supervised``) nothing is redundant or empty.
    The state are sums, so the numbers are the same for any batching and number of ranks.

    Args:
        matcher: pairs the utterances that ``update`` is given no matches of.

    Source: ProAssist, arXiv:2506.05904; content accuracy is ours.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    num_matched: Tensor
    num_mismatched: Tensor
    num_missed: Tensor
    num_redundant: Tensor
    num_empty: Tensor
    num_keyword_references: Tensor
    num_keyword_matched: Tensor
    num_content_right: Tensor
    sum_time_difference_s: Tensor
    sum_semantic_score: Tensor

    def __init__(self, matcher: Matcher) -> None:
        super().__init__()
        self.matcher = matcher
        for name in _COUNTS:
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")
        for name in ("sum_time_difference_s", "sum_semantic_score"):
            default = torch.tensor(0.0, dtype=torch.float64)
            self.add_state(name, default=default, dist_reduce_fx="sum")

    def update(
        self,
        transcripts: Sequence[Transcript],
        matches: Sequence[UtteranceMatch] | None = None,
    ) -> None:
        """Add streams.

        Args:
            transcripts: the streams as they were answered.
            matches: their matches, where they are known already; None: they are made here.
        """
        if matches is None:
            matches = self.matcher.match_all(transcripts)
        for transcript, match in zip(transcripts, matches, strict=True):
            self._add(transcript, match)

    def _add(self, transcript: Transcript, match: UtteranceMatch) -> None:
        matched = match.matched
        self.num_matched += len(matched)
        self.num_mismatched += len(match.pairs) - len(matched)
        self.num_missed += len(match.missed)
        self.num_redundant += len(match.redundant)
        self.num_empty += sum(
            frame.speak and not frame.text.strip() and reference.supervised
            for frame, reference in zip(transcript.frames, transcript.references, strict=True)
        )
        self.sum_semantic_score += sum(pair.score for pair in matched)
        distance = sum(abs(pair.gen_frame - pair.ref_frame) for pair in matched)
        self.sum_time_difference_s += distance / transcript.fps

        references = transcript.references
        self.num_keyword_references += sum(bool(r.text.strip() and r.keywords) for r in references)
        for pair in matched:
            keywords = references[pair.ref_frame].keywords
            if keywords:
                self.num_keyword_matched += 1
                text = transcript.frames[pair.gen_frame].text
                self.num_content_right += int(holds_keywords(text, keywords))

    def compute(self) -> dict[str, Tensor]:
        """() float64 by name; keys that mean nothing for the data are left out."""
        n = {name: int(getattr(self, name)) for name in _COUNTS}
        pairs = n["num_matched"] + n["num_mismatched"]
        num_generated = pairs + n["num_redundant"]
        num_reference = pairs + n["num_missed"]
        precision, recall, f1 = precision_recall_f1(n["num_matched"], num_generated, num_reference)
        union = pairs + n["num_missed"] + n["num_redundant"]
        values: dict[str, float] = {
            "utterance_precision": precision,
            "utterance_recall": recall,
            "utterance_f1": f1,
            "utterance_jaccard": n["num_matched"] / union if union else 1.0,
            "utterance_missing_rate": n["num_missed"] / num_reference if num_reference else 0.0,
            "utterance_redundant_rate": n["num_redundant"] / num_generated
            if num_generated
            else 0.0,
        }
        if n["num_matched"]:
            values["utterance_time_difference_s"] = (
                float(self.sum_time_difference_s) / n["num_matched"]
            )
            values["utterance_semantic_score"] = float(self.sum_semantic_score) / n["num_matched"]
        if n["num_keyword_references"]:
            values["content_accuracy"] = n["num_content_right"] / max(n["num_keyword_matched"], 1)
        for name in _COUNTS[:5]:
            values[f"utterance_{name}"] = n[name]
        return {k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()}
