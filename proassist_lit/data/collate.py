"""Makes a batch of examples, padded or packed; the only place that builds one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from proassist_lit.types import IGNORE_INDEX, Batch, Example


def collate(examples: Sequence[Example], *, hidden_id: int | None = None) -> Batch:
    """Pad ``examples`` on the right. Padding is known by length, never by a token id.

    Args:
        examples: at least one.
        hidden_id: a token that is hidden from attention and never learnt, as ProAssist's DST
            extension does with the end of turn where it is also the padding; None for ours.

    Raises:
        ValueError: no examples.
    """
    lengths = _lengths(examples)

    def pad(name: str, value: int) -> Tensor:
        rows = [getattr(example, name) for example in examples]
        return pad_sequence(rows, batch_first=True, padding_value=value)

    positions = torch.arange(max(lengths))
    input_ids, labels, dst_labels = (
        pad("input_ids", 0),
        pad("labels", IGNORE_INDEX),
        pad("dst_labels", IGNORE_INDEX),
    )
    attention_mask = (positions < torch.tensor(lengths)[:, None]).long()
    if hidden_id is not None:
        attention_mask = attention_mask * (input_ids != hidden_id)
        labels = labels.where(attention_mask == 1, IGNORE_INDEX)
        dst_labels = dst_labels.where(attention_mask == 1, IGNORE_INDEX)
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        hides_tokens=hidden_id is not None,
        lengths=lengths,
        image_counts=tuple(len(example.image_features) for example in examples),
        image_mask=pad("image_mask", 0),
        image_features=torch.cat([example.image_features for example in examples]),
        labels=labels,
        dst_labels=dst_labels,
        pos_frame_mask=pad("pos_frame_mask", 0),
        neg_frame_mask=pad("neg_frame_mask", 0),
        dst_pos_frame_mask=pad("dst_pos_frame_mask", 0),
        dst_neg_frame_mask=pad("dst_neg_frame_mask", 0),
        speak_targets=pad("speak_targets", 0),
        dst_targets=pad("dst_targets", 0),
        **_relevance(examples, lambda name: pad(name, 0)),
    )


def pack(examples: Sequence[Example]) -> Batch:
    """Write ``examples`` one behind the other into one row, without any padding.

    Args:
        examples: at least one.

    Raises:
        ValueError: no examples.
    """
    lengths = _lengths(examples)

    def join(name: str) -> Tensor:
        return torch.cat([getattr(example, name) for example in examples])[None]

    segment_ids = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    labels, dst_labels = join("labels"), join("dst_labels")
    # The first token of a conversation follows nothing: it is not learnt from the one before.
    firsts = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    labels[:, firsts] = dst_labels[:, firsts] = IGNORE_INDEX
    input_ids = join("input_ids")
    return Batch(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        segment_ids=segment_ids[None],
        lengths=lengths,
        image_counts=tuple(len(example.image_features) for example in examples),
        image_mask=join("image_mask"),
        image_features=torch.cat([example.image_features for example in examples]),
        labels=labels,
        dst_labels=dst_labels,
        pos_frame_mask=join("pos_frame_mask"),
        neg_frame_mask=join("neg_frame_mask"),
        dst_pos_frame_mask=join("dst_pos_frame_mask"),
        dst_neg_frame_mask=join("dst_neg_frame_mask"),
        speak_targets=join("speak_targets"),
        dst_targets=join("dst_targets"),
        **_relevance(examples, join),
    )


def split(
    batch: Batch, max_tokens: int | None, max_conversations: int | None = None
) -> list[Batch]:
    """Parts of a batch: as many neighbouring conversations as the limits allow, at least one.

    Args:
        batch: made by ``pack`` or ``collate``; waits for no device.
        max_tokens: most tokens of a part, padding included; None for no limit.
        max_conversations: most conversations of a part; None for no limit.
    """
    packed, starts = batch.segment_ids is not None, [0]
    for number in range(1, len(batch.lengths)):
        held = batch.lengths[starts[-1] : number + 1]
        tokens = sum(held) if packed else max(held) * len(held)
        is_full = max_conversations is not None and len(held) > max_conversations
        if is_full or (max_tokens is not None and tokens > max_tokens):
            starts.append(number)
    ends = [*starts[1:], len(batch.lengths)]
    return [_part(batch, start, end) for start, end in zip(starts, ends, strict=True)]


def _part(batch: Batch, start: int, end: int) -> Batch:
    """Conversations ``start`` .. ``end - 1``."""
    lengths = batch.lengths[start:end]
    if batch.segment_ids is not None:
        before = sum(batch.lengths[:start])
        rows, columns = slice(None), slice(before, before + sum(lengths))
    else:
        rows, columns = slice(start, end), slice(max(lengths))
    values: dict[str, Any] = {
        f.name: value[rows, columns] if isinstance(value, Tensor) else value
        for f in fields(batch)
        if (value := getattr(batch, f.name)) is not None
    }
    if batch.segment_ids is not None:
        values["segment_ids"] = values["segment_ids"] - start
    first = sum(batch.image_counts[:start])
    counts = batch.image_counts[start:end]
    values["image_features"] = batch.image_features[first : first + sum(counts)]
    return replace(batch, **{**values, "lengths": lengths, "image_counts": counts})


def _relevance(examples: Sequence[Example], make: Callable[[str], Tensor]) -> dict[str, Any]:
    """The masks that only some decisions are learnt by: all examples have them, or none."""
    if examples[0].relevance_pos_frame_mask is None:
        return {}
    names = ("relevance_pos_frame_mask", "relevance_neg_frame_mask")
    return {name: make(name) for name in names}


def _lengths(examples: Sequence[Example]) -> tuple[int, ...]:
    if not examples:
        raise ValueError("collate: got no examples; a batch needs at least one.")
    return tuple(len(example.input_ids) for example in examples)
