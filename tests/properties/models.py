"""Tiny random models and examples for properties that need a forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cache

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import Decision, HeadType, ModelConfig
from proassist_lit.objectives import Losses
from proassist_lit.sequence.sampling import sample_decisions
from proassist_lit.types import Example
from tests.fakes import VISION_SIZE, random_features
from tests.properties.strategies import CHATS, TOKENIZER, Case

DTYPES = {torch.float64: 1e-9, torch.float32: 1e-5}
"""Relative error that rounding alone may make."""


@cache
def model(
    decision: Decision = Decision.HEAD,
    chat_name: str = "compact",
    separator: str = "",
    *,
    head: HeadType = HeadType.MLP,
    dst_output_head: bool = True,
    dtype: torch.dtype = torch.float64,
) -> AssistantModel:
    """Two layers of width 16; every weight is random, none zero."""
    config = LlamaConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=None,
    )
    backbone = LlamaForCausalLM(config)
    _norm_in_full_precision(backbone)
    made = AssistantModel(
        backbone,
        vision_size=VISION_SIZE,
        config=ModelConfig(decision=decision, head=head, dst=True, dst_output_head=dst_output_head),
        chat=CHATS[chat_name, separator],
    )
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return made.to(dtype).eval()


def _norm_in_full_precision(module: nn.Module) -> None:
    """Hugging Face's norm rounds to float32, which no comparison to 1e-9 survives."""
    for name, child in module.named_children():
        if isinstance(child, LlamaRMSNorm):
            exact = nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon)
            setattr(module, name, exact)
        _norm_in_full_precision(child)


def example(
    case: Case,
    *,
    rho: float = 1.0,
    turn_frames: int | None = None,
    dtype: torch.dtype = torch.float64,
    max_seq_len: int = 10**9,
    smoothing_s: float = 0.0,
) -> Example:
    """The case as a training example with random features."""
    built = case.build(max_seq_len, relevance=turn_frames is None)
    decisions = sample_decisions(
        built,
        rho=rho,
        turn_frames=turn_frames,
        seed=0,
        epoch=0,
        record_id=case.conversation.id,
        smoothing_s=smoothing_s,
    )
    num_frames = len(built.frame_indices)
    features = random_features(num_frames, case.num_tokens_per_img, seed=len(built.input_ids))
    return Example(
        input_ids=built.input_ids,
        image_mask=built.image_mask,
        image_features=features.flatten(0, 1).to(dtype),
        labels=built.labels,
        dst_labels=built.dst_labels,
        **{f.name: getattr(decisions, f.name) for f in fields(decisions)},
    )


def terms(losses: Losses) -> Tensor:
    """(12,) sums and counts of the four losses; (16,) with those of relevance."""
    assert losses.dst is not None
    assert losses.dst_response is not None
    parts = [losses.response, losses.speak.pos, losses.speak.neg]
    if losses.relevance is not None:
        parts += [losses.relevance.pos, losses.relevance.neg]
    parts += [losses.dst_response, losses.dst.pos, losses.dst.neg]
    return torch.stack([value for part in parts for value in (part.sum, part.count)])


def gradients(made: AssistantModel, total: Tensor) -> dict[str, Tensor]:
    """Gradient of every parameter, zeros where nothing reaches it."""
    named = dict(made.named_parameters())
    found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(named.items(), found, strict=True)
    }


def batches(case: st.SearchStrategy[Case], largest: int) -> st.SearchStrategy[Sequence[Case]]:
    """Some cases of one batch."""
    return st.lists(case, min_size=1, max_size=largest)
