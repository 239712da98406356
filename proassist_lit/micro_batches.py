"""A batch in parts: the gradient of the whole in the memory of a part, nothing computed twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from proassist_lit.data.collate import split
from proassist_lit.loss_terms import LossTerms
from proassist_lit.losses import BinaryLoss, SumCount
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import Decision
from proassist_lit.objectives import (
    Losses,
    ObjectiveConfig,
    compute_losses,
    learnt_dst_labels,
    not_silent_frames,
    weigh,
)
from proassist_lit.types import IGNORE_INDEX, Batch


def compute_losses_in_parts(
    model: AssistantModel, batch: Batch, config: ObjectiveConfig, max_tokens: int | None,
    counts: Tensor | None = None, *, max_conversations: int | None = None, scale: float = 1.0,
) -> Losses:  # fmt: skip
    """The losses of ``compute_losses``, of which each part has gone forward and backward in turn.

    The total is linear in the sums of the losses, and what they are divided by is known before
    anything is computed: so the gradients of the parts add up to that of the batch. Only the
    total has a gradient; whoever asks for it is given what was added up.

    Args:
        model: what learns.
        batch: padded or packed.
        config: what is learnt.
        max_tokens: most tokens of a part, but for a single longer conversation; None for one part.
        counts: what each loss is divided by, if the batch is a part of something larger: as
            ``count_terms`` gives them, added over all parts.
        max_conversations: most of a part; None for no limit.
        scale: what the shares of the parts are multiplied by on their way backward, so that
            gradients in float16 do not vanish; that of the total is without it.
    """
    parts = split(batch, max_tokens, max_conversations)
    if len(parts) == 1 or not torch.is_grad_enabled():
        losses = compute_losses(model, batch, config)
        return losses if counts is None else _of_larger(losses, counts, model.decision, config)
    fills = counts is not None  # other processes wait for every gradient
    counts = count_terms(model, batch) if counts is None else counts
    rates = _rates(counts, model.decision, config)
    sums = torch.zeros_like(rates)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def add_up() -> list[Tensor | None]:
        added = _Sums(len(parameters))
        for part in parts:
            with torch.enable_grad():
                losses = compute_losses(model, part, config)
                found = losses.sums()
                share = scale * (found * rates).sum()
            sums.add_(found.detach())
            del losses, found
            with torch.autocast(share.device.type, enabled=False):
                added.add(list(torch.autograd.grad(share, parameters, allow_unused=True)))
        if fills:
            return [
                torch.zeros_like(p) if g is None else g
                for p, g in zip(parameters, added.tensors, strict=True)
            ]
        return added.tensors

    total: Tensor = _AddedUp.apply(add_up, scale, sums, rates, *parameters)  # type: ignore[no-untyped-call]
    terms = LossTerms.of(sums, counts, model.decision)
    return replace(weigh(terms, model.decision, config), total=total)


def compute_losses_of_shards(
    model: AssistantModel, parts: Sequence[Batch], config: ObjectiveConfig, counts: Tensor,
    backward: Callable[[Tensor], object], *, num_parts: int,
) -> Losses:  # fmt: skip
    """As ``compute_losses_in_parts``, of a model whose weights lie in shards.

    Gradients are added up in the shards, as the parts go backward: all but the last here, the
    last when the total does. Who has fewer parts than the others goes along with them for
    nothing, since all processes meet at every layer.

    Args:
        model: what learns.
        parts: of this process's batch.
        config: what is learnt.
        counts: what each loss is divided by, over all processes.
        backward: takes a share of the total and adds its gradient to the weights'.
        num_parts: most parts of a process.
    """
    rates = _rates(counts, model.decision, config)
    sums, share = torch.zeros_like(rates), rates.new_zeros(())
    for place in range(num_parts):
        if place:
            with torch.autocast(share.device.type, enabled=False):
                backward(share)
        is_extra = place >= len(parts)
        losses = compute_losses(model, parts[0 if is_extra else place], config)
        found = losses.sums() * (0 if is_extra else 1)
        share = (found * rates).sum()
        sums += found.detach()
    total = share - share.detach() + (sums * rates).sum()
    terms = LossTerms.of(sums, counts, model.decision)
    return replace(weigh(terms, model.decision, config), total=total)


def _of_larger(
    losses: Losses, counts: Tensor, decision: Decision, config: ObjectiveConfig
) -> Losses:
    """The share of a part in the losses of the whole, which has so many terms."""
    return weigh(LossTerms.of(losses.sums(), counts, decision), decision, config)


class _AddedUp(torch.autograd.Function):
    """The total, and for its gradient what was added up."""

    @staticmethod
    def forward(
        ctx: Any,
        add_up: Callable[[], list[Tensor | None]],
        scale: float,
        sums: Tensor,
        rates: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.gradients, ctx.scale = add_up(), scale
        return (sums * rates).sum()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None  # so that nobody has to copy them
        factor = factor / ctx.scale
        return (None, None, None, None, *(g if g is None else g.mul_(factor) for g in gradients))


class _Sums:
    """Gradients of the parts, added in place."""

    def __init__(self, number: int) -> None:
        self.tensors: list[Tensor | None] = [None] * number

    def add(self, gradients: list[Tensor | None]) -> None:
        """Add those of a part; ``gradients`` is emptied, and with it their memory."""
        seen: set[int] = set()
        for i in reversed(range(len(gradients))):
            gradient, so_far = gradients.pop(), self.tensors[i]
            if gradient is None:
                continue
            if so_far is not None:
                so_far.add_(gradient)
                continue
            # What is added to later must be nobody else's: one gradient may be that of two.
            place = gradient.untyped_storage().data_ptr()
            is_own = place not in seen and gradient.is_contiguous()
            self.tensors[i] = gradient if is_own else gradient.clone()
            seen.add(place)


def count_terms(model: AssistantModel, batch: Batch) -> Tensor:
    """(N,) what each loss is divided by, in the order of ``LossTerms``."""
    zero = torch.zeros(
        (), device=batch.labels.device,
        dtype=torch.float64 if model.dtype == torch.float64 else torch.float32,
    )  # fmt: skip

    def term(learnt: Tensor) -> SumCount:
        return SumCount(zero, learnt.sum().to(zero.dtype))

    response = term(batch.labels[:, 1:] != IGNORE_INDEX)
    if (not_silent := not_silent_frames(model, batch)) is not None:
        response = response + term(not_silent)
    speak = BinaryLoss(term(batch.pos_frame_mask), term(batch.neg_frame_mask))
    relevance = dst_response = dst = None
    if model.decision is Decision.INFORMATIVE_RELEVANCE:
        pos, neg = batch.relevance_pos_frame_mask, batch.relevance_neg_frame_mask
        assert pos is not None
        assert neg is not None
        relevance = BinaryLoss(term(pos), term(neg))
    if model.dst_head is not None:
        dst_response = term(learnt_dst_labels(model, batch)[:, 1:] != IGNORE_INDEX)
        dst = BinaryLoss(term(batch.dst_pos_frame_mask), term(batch.dst_neg_frame_mask))
    return LossTerms(response, speak, relevance, dst_response, dst).counts()


def _rates(counts: Tensor, decision: Decision, config: ObjectiveConfig) -> Tensor:
    """How much each sum weighs in the total."""
    with torch.enable_grad():
        sums = torch.zeros_like(counts, requires_grad=True)
        terms = LossTerms.of(sums, counts, decision)
        (rates,) = torch.autograd.grad(weigh(terms, decision, config).total, sums)
    return rates
