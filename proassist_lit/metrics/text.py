"""Are the words right: BLEU, ROUGE-L and CIDEr of utterances against the ones they match.

METEOR needs a Java program that no dependency brings; where it is not asked for, no key stands for
it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from proassist_lit.metrics.matching import UtteranceMatch
from proassist_lit.metrics.meteor import Meteor
from proassist_lit.metrics.ptb import tokenize
from proassist_lit.types import Transcript

MAX_ORDER = 4
"""Longest n-gram of BLEU and CIDEr, words."""

Tokens = Sequence[str]


def bleu(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[float]:
    """Corpus-level BLEU-1 .. BLEU-4 in [0, 1].

    Args:
        hypotheses: (n) tokenized texts.
        references: (n) tokenized references of each, one or more.

    Returns:
        (4) geometric mean of the clipped n-gram precisions up to each order, times the brevity
        penalty against the references closest in length.

    Source: BLEU (Papineni et al. 2002) with the tiny constants of the COCO caption evaluation
    (arXiv:1504.00325), so that numbers compare with the reference's. An order without a single
    hit therefore is small, not 0.
    """
    tiny, small = 1e-15, 1e-9
    hits, totals = [0] * MAX_ORDER, [0] * MAX_ORDER
    hypothesis_len = reference_len = 0
    for hypothesis, texts in zip(hypotheses, references, strict=True):
        hypothesis_len += len(hypothesis)
        reference_len += min((abs(len(t) - len(hypothesis)), len(t)) for t in texts)[1]
        for order in range(1, MAX_ORDER + 1):
            allowed: Counter[Tokens] = Counter()
            for text in texts:
                allowed |= _ngrams(text, order)  # the largest count of any reference
            counts = _ngrams(hypothesis, order)
            hits[order - 1] += (counts & allowed).total()
            totals[order - 1] += counts.total()
    ratio = (hypothesis_len + tiny) / (reference_len + small)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    scores, product = [], 1.0
    for order in range(1, MAX_ORDER + 1):
        product *= (hits[order - 1] + tiny) / (totals[order - 1] + small)
        scores.append(product ** (1 / order) * penalty)
    return scores


def rouge_l(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """Mean over texts of ROUGE-L, in [0, 1].

    Of each text the best precision and the best recall of the longest common subsequence over its
    references, joined as F with beta 1.2. Arguments as for ``bleu``.

    Source: Lin 2004, with the beta of the COCO caption evaluation (arXiv:1504.00325).
    """
    beta_squared = 1.2**2
    total = 0.0
    for hypothesis, texts in zip(hypotheses, references, strict=True):
        common = [_common_len(hypothesis, text) for text in texts]
        precision = max(common) / max(len(hypothesis), 1)
        recall = max(c / max(len(t), 1) for c, t in zip(common, texts, strict=True))
        if precision and recall:
            total += (1 + beta_squared) * precision * recall / (recall + beta_squared * precision)
    return total / max(len(hypotheses), 1)


def cider(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """Mean over texts of CIDEr-D, in [0, 10].

    N-grams are weighted by how few texts' references hold them, so the number depends on the
    whole corpus; that of a single text is 0. Arguments as for ``bleu``.

    Source: arXiv:1411.5726, with sigma 6 as in the COCO caption evaluation, which calls
    it CIDEr and takes the number of bigrams for the length of a text; so do we.
    """
    sigma = 6.0
    document_counts: Counter[Tokens] = Counter()
    for texts in references:
        document_counts.update({g for t in texts for n in range(1, 5) for g in _ngrams(t, n)})
    log_num = math.log(max(len(references), 1))

    def weigh(tokens: Tokens, order: int) -> dict[Tokens, float]:
        return {
            gram: count * (log_num - math.log(max(1, document_counts[gram])))
            for gram, count in _ngrams(tokens, order).items()
        }

    total = 0.0
    for hypothesis, texts in zip(hypotheses, references, strict=True):
        for order in range(1, MAX_ORDER + 1):
            left = weigh(hypothesis, order)
            for text in texts:
                right = weigh(text, order)
                norm = math.hypot(*left.values()) * math.hypot(*right.values())
                dot = sum(min(v, right.get(g, 0.0)) * right.get(g, 0.0) for g, v in left.items())
                delta = max(len(hypothesis) - 1, 0) - max(len(text) - 1, 0)
                gauss = math.exp(-(delta**2) / (2 * sigma**2))
                total += (dot / norm if norm else 0.0) * gauss / len(texts)
    return 10.0 * total / MAX_ORDER / max(len(hypotheses), 1)


class TextPairMetrics(Metric):
    """BLEU-1 .. 4, ROUGE-L and CIDEr over pairs of texts, and METEOR if asked for.

    Pairs whose reference has no word are dropped. ``compute`` returns ``<prefix>_bleu_1 .. _4``,
    ``<prefix>_rouge_l``, ``<prefix>_cider`` and ``<prefix>_meteor``, or nothing without pairs. The
    state is the gathered words (``ptb.tokenize``): CIDEr needs the whole corpus.

    Args:
        prefix: of the keys.
        meteor: the program; None to leave METEOR out.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    pairs: list[Tensor] | Tensor  # each (num bytes,) float32, see _encode

    def __init__(self, prefix: str, *, meteor: Meteor | None = None) -> None:
        super().__init__()
        self.prefix, self.meteor = prefix, meteor
        self.add_state("pairs", default=[], dist_reduce_fx="cat")

    def update(self, texts: Iterable[tuple[str, str]]) -> None:
        """Add pairs of what was generated and what was to be said."""
        assert isinstance(self.pairs, list)
        for hypothesis, reference in texts:
            if words := tokenize(reference):
                self.pairs.append(_encode(tokenize(hypothesis), words).to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """() float64 by name; empty without pairs."""
        if isinstance(self.pairs, list) and not self.pairs:
            return {}
        # Sorted, so that no order of streams or ranks shows in the last digit.
        pairs = sorted(_decode(dim_zero_cat(self.pairs)))
        if not pairs:
            return {}
        hypotheses = [hypothesis for hypothesis, _ in pairs]
        references = [[reference] for _, reference in pairs]
        values = {f"bleu_{n}": v for n, v in enumerate(bleu(hypotheses, references), 1)}
        values["rouge_l"] = rouge_l(hypotheses, references)
        values["cider"] = cider(hypotheses, references)
        if self.meteor is not None:
            said, wanted = (
                [" ".join(words) for words in side] for side in zip(*pairs, strict=True)
            )
            values["meteor"] = self.meteor(said, [[text] for text in wanted])
        return {
            f"{self.prefix}_{k}": torch.tensor(v, dtype=torch.float64) for k, v in values.items()
        }


def matched_texts(
    transcripts: Sequence[Transcript], matches: Sequence[UtteranceMatch]
) -> Iterator[tuple[str, str]]:
    """Generated and reference words of matched utterances (score >= threshold).

    Only these are scored, as in the reference.
    """
    for transcript, match in zip(transcripts, matches, strict=True):
        for pair in match.matched:
            yield (
                transcript.frames[pair.gen_frame].text,
                transcript.references[pair.ref_frame].text,
            )


def _ngrams(tokens: Tokens, order: int) -> Counter[Tokens]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


def _common_len(left: Tokens, right: Tokens) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(right) + 1)
    for a in left:
        diagonal = 0
        for j, b in enumerate(right, 1):
            diagonal, row[j] = row[j], diagonal + 1 if a == b else max(row[j], row[j - 1])
    return row[-1]


def _encode(hypothesis: Tokens, reference: Tokens) -> Tensor:
    """(num bytes,) float32: tokens hold no control characters, so these part them.

    Ranks exchange tensors only, and one without data sends an empty float32.
    """
    text = " ".join(hypothesis) + "\x1f" + " ".join(reference) + "\x1e"
    return torch.tensor(list(text.encode()), dtype=torch.float32)


def _decode(state: Tensor) -> list[tuple[list[str], list[str]]]:
    text = bytes(state.to(torch.uint8).tolist()).decode()
    pairs = [record.split("\x1f") for record in text.split("\x1e")[:-1]]
    return [(hypothesis.split(), reference.split()) for hypothesis, reference in pairs]
