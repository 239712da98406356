"""What a training batch must not pay for: words that nobody learns, keys that nobody reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from torch import nn
from transformers import Cache

from proassist_lit.data.collate import collate, pack
from proassist_lit.model.config import Decision
from proassist_lit.objectives import ObjectiveConfig, compute_losses, learnt_dst_labels
from proassist_lit.types import IGNORE_INDEX, Batch
from tests.fakes import tiny_model, word_chat
from tests.sequence.batches import example_set

CHUNK = 2
CHAT = word_chat()
EXAMPLES = example_set()
BATCHES = pytest.mark.parametrize("make_batch", [
    collate, partial(collate, hidden_id=CHAT.end_of_turn_id), pack,
], ids=["padded", "hidden", "packed"])  # fmt: skip
OWN_HEAD = pytest.mark.parametrize("own_head", [False, True])


def made(make_batch: Callable[..., Batch]) -> Batch:
    return make_batch([EXAMPLES[0, i] for i in range(2)])


def num_labels(labels: Any) -> int:
    return int((labels[:, 1:] != IGNORE_INDEX).sum())  # the first token has none before it


@BATCHES
@OWN_HEAD
@pytest.mark.parametrize("decision", [
    Decision.HEAD, Decision.SILENT_TOKEN, Decision.OPENING_TOKEN,
])  # fmt: skip
def test_words_are_scored_where_they_are_learnt_and_nowhere_else(
    make_batch: Callable[..., Batch], own_head: bool, decision: Decision
) -> None:
    batch = made(make_batch)
    model = tiny_model(decision=decision, dst_output_head=own_head, chat=CHAT).train()
    rows: Counter[str] = Counter()
    longest = 0

    def note(name: str, _module: nn.Module, _inputs: Any, logits: Any) -> None:
        nonlocal longest
        scored = logits[..., 0].numel()
        rows[name] += scored
        longest = max(longest, scored)

    heads = {"lm": model.lm.get_output_embeddings(), "dst": model.dst_output_head}
    for name, head in heads.items():
        if head is not None:
            head.register_forward_hook(partial(note, name))
    losses = compute_losses(model, batch, ObjectiveConfig(logit_chunk=CHUNK))

    updates = num_labels(learnt_dst_labels(model, batch))
    want = Counter(lm=num_labels(batch.labels))
    want["dst" if own_head else "lm"] += updates
    if decision is not Decision.HEAD:  # the vocabulary is read to decide
        want["lm"] += int((batch.pos_frame_mask | batch.neg_frame_mask).sum())
    if decision is Decision.OPENING_TOKEN:
        asked = int((batch.dst_pos_frame_mask | batch.dst_neg_frame_mask).sum())
        want["dst" if own_head else "lm"] += asked
    assert rows == want
    assert updates > 0
    assert num_labels(batch.labels) + updates < batch.input_ids.numel() / 2
    if decision is Decision.HEAD:
        assert longest == CHUNK
    assert losses.total.requires_grad


@BATCHES
@OWN_HEAD
def test_training_keeps_no_keys_and_values(
    make_batch: Callable[..., Batch], own_head: bool
) -> None:
    model = tiny_model(dst_output_head=own_head).train()
    assert model.lm.config.use_cache  # what Hugging Face does unless it is told not to
    found: list[str] = []
    visited = 0

    def look(name: str, module: nn.Module, inputs: Any, options: Any, output: Any) -> None:
        nonlocal visited
        visited += 1
        given = [*inputs, *options.values()]
        given += output.values() if isinstance(output, dict) else [output]
        found.extend(name for value in given if isinstance(value, Cache))

    for name, module in model.lm.named_modules():
        module.register_forward_hook(partial(look, name), with_kwargs=True)
    compute_losses(model, made(make_batch), ObjectiveConfig()).total.backward()

    assert found == []
    assert visited > 2 * model.lm.config.num_hidden_layers
