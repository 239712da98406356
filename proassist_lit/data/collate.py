"""Pads examples into a batch; the only place that builds one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from proassist_lit.types import IGNORE_INDEX, Batch, Example


def collate(examples: Sequence[Example]) -> Batch:
    """Pad ``examples`` on the right. Padding is known by length, never by a token id.

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
    return Batch(
        input_ids=pad("input_ids", 0),
        attention_mask=(positions < lengths[:, None]).long(),
        image_mask=pad("image_mask", 0),
        image_features=torch.cat([example.image_features for example in examples]),
        labels=pad("labels", IGNORE_INDEX),
        dst_labels=pad("dst_labels", IGNORE_INDEX),
        pos_frame_mask=pad("pos_frame_mask", 0),
        neg_frame_mask=pad("neg_frame_mask", 0),
        dst_pos_frame_mask=pad("dst_pos_frame_mask", 0),
        dst_neg_frame_mask=pad("dst_neg_frame_mask", 0),
    )
