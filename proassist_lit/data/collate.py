"""Pads examples into a batch; the only place that builds one."""

from __future__ import annotations

from collections.abc import Sequence

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
    if not examples:
        raise ValueError("collate: got no examples; a batch needs at least one.")

    def pad(name: str, value: int) -> Tensor:
        rows = [getattr(example, name) for example in examples]
        return pad_sequence(rows, batch_first=True, padding_value=value)

    lengths = torch.tensor([len(example.input_ids) for example in examples])
    positions = torch.arange(int(lengths.max()))
    input_ids, labels, dst_labels = (
        pad("input_ids", 0),
        pad("labels", IGNORE_INDEX),
        pad("dst_labels", IGNORE_INDEX),
    )
    attention_mask = (positions < lengths[:, None]).long()
    if hidden_id is not None:
        attention_mask = attention_mask * (input_ids != hidden_id)
        labels = labels.where(attention_mask == 1, IGNORE_INDEX)
        dst_labels = dst_labels.where(attention_mask == 1, IGNORE_INDEX)
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        hides_tokens=hidden_id is not None,
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
    )
