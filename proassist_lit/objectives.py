"""Objectives: which decisions are trained on, and how the four losses make one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import reduce
from operator import add

import torch.nn.functional as F
from torch import Tensor

from proassist_lit.errors import ConfigError
from proassist_lit.loss_terms import LossTerms
from proassist_lit.losses import LOGIT_CHUNK, BinaryLoss, SumCount, binary_loss, lm_loss
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import Decision
from proassist_lit.types import IGNORE_INDEX, Batch


class ObjectiveKind(StrEnum):
    """Where decisions are trained."""

    PER_TOKEN = "per_token"
    """At every frame, under the frame masks; mean of the two class means. Of two heads to speak
    (``model.decision=informative_relevance``) each learns so, the second one from every frame."""

    PER_TURN = "per_turn"
    """Once a turn, at its last token; plain mean."""

    TOKEN_PROB = "token_prob"
    """At every frame, by the probability of a token instead of a head (``model.decision``)."""


class Turns(StrEnum):
    """How the turns of ``per_turn`` go through the model. Both learn the same."""

    SHARED = "shared"
    """One forward for a conversation; all its turns are read from it."""

    SINGLE = "single"
    """Every turn is a row of its own, the conversation up to it: slow, and the plain reading of
    the per-turn objective."""


@dataclass(kw_only=True)
class ObjectiveConfig:
    """What is learnt."""

    kind: ObjectiveKind = ObjectiveKind.PER_TURN
    """per_token, per_turn or token_prob."""

    rho: float = 1.0
    """Share of the silent frames (per_turn: silent turns) trained on, drawn anew each epoch."""

    turn_frames: int = 1
    """per_turn: a silent turn ends at every so many frames since the last span; >= 1. With more
    than 1 silence is learnt there only, and streams must decide there, too: stream.stride. For
    fewer silent frames rather lower rho."""

    turns: Turns = Turns.SHARED
    """per_turn: shared or single."""

    silent_logit_weight: float = 1.0
    """token_prob: weight of the silent token at silent frames (ProAssist's w2t_logit_weight)."""

    smoothing_s: float = 0.0
    """Temporal label smoothing: standard deviation, in seconds, of the targets around a frame to
    act at (0.61 at that distance); 0 for none."""

    pos_weight: float = 1.0
    """Weight of yes-decisions relative to no-decisions; > 0."""

    focal_gamma: float = 0.0
    """Exponent of the focal factor; 0 for none."""

    logit_chunk: int = LOGIT_CHUNK
    """Labelled positions whose vocabulary logits are alive at a time; >= 1. It changes memory, not
    the loss."""

    response_gen_weight: float = 1.0
    """Weight of the language-model loss of assistant spans."""

    speaking_binary_weight: float = 1.0
    """Weight of the speak decision; of two heads, of both."""

    dst_gen_weight: float = 1.0
    """Weight of the language-model loss of dst spans."""

    dst_binary_weight: float = 1.0
    """Weight of the update decision."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.rho <= 1.0:
            raise ConfigError(
                f"objective.rho must be in [0, 1], got {self.rho}; use 1.0 to train on every "
                "silent frame."
            )
        if self.turn_frames < 1:
            raise ConfigError(
                f"objective.turn_frames must be at least 1, got {self.turn_frames}; 1 ends a turn "
                "at every silent frame."
            )
        if self.logit_chunk < 1:
            raise ConfigError(f"objective.logit_chunk must be at least 1, got {self.logit_chunk}.")
        if self.pos_weight <= 0:
            raise ConfigError(f"objective.pos_weight must be > 0, got {self.pos_weight}.")
        for name in ("focal_gamma", "smoothing_s", "silent_logit_weight", "response_gen_weight",
                     "speaking_binary_weight", "dst_gen_weight", "dst_binary_weight"):  # fmt: skip
            if getattr(self, name) < 0:
                raise ConfigError(f"objective.{name} must be >= 0, got {getattr(self, name)}.")
        if self.kind is ObjectiveKind.PER_TURN:
            return
        if self.turns is Turns.SINGLE:
            raise ConfigError(
                f"objective.turns=single needs objective.kind=per_turn, got {self.kind.value}; "
                "leave objective.turns at shared."
            )

    @property
    def sampled_turn_frames(self) -> int | None:
        """``turn_frames`` where turns matter, None for a decision at every frame."""
        return self.turn_frames if self.kind is ObjectiveKind.PER_TURN else None


@dataclass(frozen=True, kw_only=True)
class Losses(LossTerms):
    """The losses of a batch, and their weighted total."""

    total: Tensor  # () float32
    parts: Mapping[str, Tensor]  # () float32 each; times their weights they add up to the total


def compute_losses(model: AssistantModel, batch: Batch, config: ObjectiveConfig) -> Losses:
    """Run ``model`` on ``batch`` and weigh its losses.

    ``total = response_gen_weight * LM(assistant) + speaking_binary_weight * speak
    + dst_gen_weight * LM(dst) + dst_binary_weight * dst``. Where silence is a token, its
    cross-entropy is part of LM(assistant) and there is no speak term; so is, where no opening tells
    it (``not_silent_frames``), that frames to speak at are not silent. Of two heads to speak,
    ``relevance`` is a term beside ``speak``, of the same weight.
    """
    out = model(batch)
    chunk, gamma = config.logit_chunk, config.focal_gamma
    response = lm_loss(model, out.hidden, batch.labels, logit_chunk=chunk)
    speak = binary_loss(
        out.speak_logits, batch.pos_frame_mask, batch.neg_frame_mask,
        targets=batch.speak_targets, focal_gamma=gamma,
    )  # fmt: skip
    if (not_silent := not_silent_frames(model, batch)) is not None:
        apart = binary_loss(
            out.speak_logits, not_silent, batch.neg_frame_mask, focal_gamma=gamma
        )  # fmt: skip
        response = response + apart.pos
    relevance = dst_response = dst = None
    if out.relevance_logits is not None:
        pos, neg = batch.relevance_pos_frame_mask, batch.relevance_neg_frame_mask
        assert pos is not None
        assert neg is not None
        relevance = binary_loss(out.relevance_logits, pos, neg, focal_gamma=gamma)
    if out.dst_logits is not None:
        labels = learnt_dst_labels(model, batch)
        dst_response = lm_loss(model, out.hidden, labels, dst=True, logit_chunk=chunk)
        dst = binary_loss(
            out.dst_logits, batch.dst_pos_frame_mask, batch.dst_neg_frame_mask,
            targets=batch.dst_targets, focal_gamma=gamma,
        )  # fmt: skip
    terms = LossTerms(response, speak, relevance, dst_response, dst)
    return weigh(terms, model.decision, config)


def not_silent_frames(model: AssistantModel, batch: Batch) -> Tensor | None:
    """(B, T) bool, frames at which it is learnt apart that they are not silent; None for never.

    Where silence is a token, the opening of an utterance tells it, if the chat format learns
    openings and nothing is written between: behind an update the opening does not follow the frame.
    """
    if model.decision is not Decision.SILENT_TOKEN or model.chat is None:
        return None
    if not model.chat.format.train_openings:
        return batch.pos_frame_mask
    if model.dst_head is None:
        return None
    return batch.pos_frame_mask & batch.dst_pos_frame_mask


def learnt_dst_labels(model: AssistantModel, batch: Batch) -> Tensor:
    """(B, T) labels of dst spans, without what the silent token is learnt in place of.

    The dst head decides on updates, and openings are fed; but the token that follows a decision
    token tells whether there is silence: it cannot be an opening there, too.
    """
    if model.decision is not Decision.SILENT_TOKEN:
        return batch.dst_labels
    is_first = F.pad(batch.dst_pos_frame_mask[:, :-1], (1, 0))
    return batch.dst_labels.masked_fill(is_first, IGNORE_INDEX)


def weigh(terms: LossTerms, decision: Decision, config: ObjectiveConfig) -> Losses:
    """Make losses of their terms; linear in the sums."""
    if decision is Decision.SILENT_TOKEN:
        parts = {"response": _with_silence(terms.response, terms.speak.neg, config)}
    else:
        parts = {"response": terms.response.mean(), "speak": _decide(terms.speak, config)}
    if terms.relevance is not None:
        parts["relevance"] = _decide(terms.relevance, config)
    if terms.dst_response is not None:
        parts["dst_response"] = terms.dst_response.mean()
    if terms.dst is not None:
        parts["dst"] = _decide(terms.dst, config)
    weights = {
        "response": config.response_gen_weight,
        "speak": config.speaking_binary_weight,
        "relevance": config.speaking_binary_weight,
        "dst_response": config.dst_gen_weight,
        "dst": config.dst_binary_weight,
    }
    total = reduce(add, (weights[name] * part for name, part in parts.items()))
    named = {field.name: getattr(terms, field.name) for field in fields(LossTerms)}
    return Losses(**named, total=total, parts=parts)


def _decide(loss: BinaryLoss, config: ObjectiveConfig) -> Tensor:
    if config.kind is ObjectiveKind.PER_TURN:
        return loss.plain(config.pos_weight)
    return loss.balanced(config.pos_weight)


def _with_silence(response: SumCount, silent: SumCount, config: ObjectiveConfig) -> Tensor:
    """Mean over words and silent frames, the latter weighted in the sum but not in the count.

    Source: ProAssist, arXiv:2506.05904 (``w2t_logit_weight``).
    """
    total = response.sum + config.silent_logit_weight * silent.sum
    return total / (response.count + silent.count).clamp(min=1)
