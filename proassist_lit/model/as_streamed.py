"""A model as streams run on it: plain weights, all of one type."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.lora import Aside, merge, put_back
from proassist_lit.model.weights_type import cast_weights


@contextmanager
def as_streamed(model: AssistantModel) -> Iterator[None]:
    """Let ``model`` be for a while as ``make_plain`` makes it."""
    aside = make_plain(model)
    try:
        yield
    finally:
        put_back(aside)


@torch.no_grad()
def make_plain(model: AssistantModel) -> Aside:
    """Give a model the weights that streams run on: additions merged in, all of one type.

    Beside a backbone in bfloat16, projector and heads are trained in float32; a stream would
    change from one to the other at every frame.

    Returns:
        What stood in their places, untouched, for ``put_back``.
    """
    aside = merge(model.lm)
    for name, part in list(model.named_children()):
        kinds = {parameter.dtype for parameter in part.parameters()}
        if name != "lm" and kinds - {model.dtype}:
            aside.append((model, name, part))
            plain = copy.deepcopy(part)
            cast_weights(plain, model.dtype)
            setattr(model, name, plain.requires_grad_(False))
    return aside
