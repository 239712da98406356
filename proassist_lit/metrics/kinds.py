"""Was a mistake corrected, a question answered: scores of each kind of utterance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from proassist_lit.metrics.matcher import generated_texts, reference_texts
from proassist_lit.metrics.matching import UtteranceMatch, precision_recall_f1
from proassist_lit.metrics.similarity import Similarity
from proassist_lit.types import KINDS, Transcript

_STATES = ("generated", "paired_kinds", "paired_likeness", "references", "reference_kinds")

_SAME = 1e-5  # likenesses that differ by less are the same
_BLOCK = 1024  # generated utterances whose likenesses are alive at a time


class UtteranceKindMetrics(Metric):
    """Precision, recall and F1 of each kind of utterance that the references have.

    An utterance may be of several kinds ("done; next ..." is feedback and instruction). A reference
    is of those that its source names. A generated one is of those of the reference, of any stream,
    that is most like it in words: whoever says "Stop, please take the knife" corrects; if several
    are as much like it, of the one that it is paired with in time, and else of all of theirs. What
    is like no reference is of no kind. An utterance is given where one of its
    kind belongs if the reference that it is paired with (see ``matching``) is of that kind,
    whatever the words: a mistake was seen when it happened. Whether the right thing was said of it
    is told by ``content_accuracy``.

    ``compute`` returns for each kind ``KIND_precision``: share of its generated utterances that are
    given where one belongs, ``KIND_recall``: share of its references that got one, ``KIND_f1``, and
    ``utterance_num_KIND``: its references. Kinds that no reference has are left out.

    The state are gathered vectors, since what is most like a text may lie in any stream.

    Args:
        similarity: embeds the texts.

    Source: ours; the kinds are ProAssist's, arXiv:2506.05904.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    generated: list[Tensor]
    paired_kinds: list[Tensor]
    paired_likeness: list[Tensor]
    references: list[Tensor]
    reference_kinds: list[Tensor]

    def __init__(self, similarity: Similarity) -> None:
        super().__init__()
        self.similarity = similarity
        for name in _STATES:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, transcripts: Sequence[Transcript], matches: Sequence[UtteranceMatch]) -> None:
        """Add streams.

        Args:
            transcripts: the streams as they were answered.
            matches: which of their utterances were paired.
        """
        said, partners, wanted = list[str](), list[str | None](), list[str]()
        paired_kinds, reference_kinds = list[list[bool]](), list[list[bool]]()
        for transcript, match in zip(transcripts, matches, strict=True):
            texts = reference_texts(transcript)
            partner = {pair.gen_frame: pair.ref_frame for pair in match.pairs}
            for frame, text in enumerate(generated_texts(transcript)):
                other = partner.get(frame)
                if text and (other is not None or transcript.references[frame].supervised):
                    said.append(text)
                    partners.append(None if other is None else texts[other])
                    kinds = () if other is None else transcript.references[other].kinds
                    paired_kinds.append(_flags(kinds))
            for text, reference in zip(texts, transcript.references, strict=True):
                if text:
                    wanted.append(text)
                    reference_kinds.append(_flags(reference.kinds))
        vectors = self.similarity(said)
        theirs = self.similarity([other or "" for other in partners])
        is_paired = torch.tensor([other is not None for other in partners], dtype=torch.bool)
        # Flat, since parts without any text, which have no width, are joined with others.
        self.generated.append(vectors.flatten())
        self.paired_likeness.append((vectors * theirs).sum(-1).where(is_paired, -torch.inf))
        self.paired_kinds.append(torch.tensor(paired_kinds, dtype=torch.bool).flatten())
        self.references.append(self.similarity(wanted).flatten())
        self.reference_kinds.append(torch.tensor(reference_kinds, dtype=torch.bool).flatten())

    def compute(self) -> dict[str, Tensor]:
        """() float64 by name."""
        state = {name: dim_zero_cat(getattr(self, name)) for name in _STATES}
        reference_kinds = state["reference_kinds"].view(-1, len(KINDS))  # (M, kinds)
        paired_kinds = state["paired_kinds"].view(-1, len(KINDS))  # (N, kinds)
        if not reference_kinds.any():  # spares a product of all texts with all others
            return {}
        references = state["references"].view(len(reference_kinds), -1)  # (M, D)
        kinds = paired_kinds
        if len(paired_kinds):
            blocks = torch.split(state["generated"].view(len(paired_kinds), -1), _BLOCK)
            found = [_kinds_of_nearest(block @ references.T, reference_kinds) for block in blocks]
            likeness, nearest_kinds = (torch.cat(parts) for parts in zip(*found, strict=True))
            is_partner = (state["paired_likeness"] >= likeness - _SAME) & (likeness > _SAME)
            kinds = paired_kinds.where(is_partner[:, None], nearest_kinds)
        values: dict[str, float] = {}
        for place, kind in enumerate(KINDS):
            num = int(reference_kinds[:, place].sum())
            if num:
                hits = int((kinds & paired_kinds)[:, place].sum())
                scores = precision_recall_f1(hits, int(kinds[:, place].sum()), num)
                for name, value in zip(("precision", "recall", "f1"), scores, strict=True):
                    values[f"{kind}_{name}"] = value
                values[f"utterance_num_{kind}"] = num
        return {k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()}


def _kinds_of_nearest(likeness: Tensor, reference_kinds: Tensor) -> tuple[Tensor, Tensor]:
    """Of (N, M) likenesses and (M, kinds) the greatest (N,), and the (N, kinds) that have it."""
    best = likeness.amax(-1, keepdim=True)  # (N, 1)
    is_nearest = (likeness >= best - _SAME) & (best > _SAME)
    return best[:, 0], (is_nearest.float() @ reference_kinds.float()) > 0


def _flags(kinds: Sequence[str]) -> list[bool]:
    return [kind in kinds for kind in KINDS]
