"""The DST extension's numbers, and what they were made of."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from proassist_lit.data.conversation import Conversation
from proassist_lit.data.sources.dst import row_to_conversation
from proassist_lit.sequence.chat import Chat, chat_format
from proassist_lit.types import IGNORE_INDEX, Batch
from tests.parity.numbers import numbers, tensors, tokenizer

FILE = numbers("dst.json")
COLLATED = {entry["name"]: entry for entry in FILE.get("collated", [])}


@cache
def dst_chat() -> Chat:
    return Chat(chat_format("dst_ext"), tokenizer("[DST]", "[ASST]"))


def record(sample: dict[str, Any], num_frames: int) -> Conversation:
    """The sample as far as there are features for it."""
    end = max(min(sample["end_frame"], num_frames), sample["start_frame"] + 1)
    turns = [
        turn
        for turn in sample["conversation"]
        if turn["role"] == "system" or turn["start_frame"] < end
    ]
    row = {**sample, "end_frame": end, "conversation": turns}
    return row_to_conversation(row, "sample", as_released=True)


def stored_batch(name: str) -> Batch:
    entry = COLLATED[name]
    stored = {
        key.removeprefix(entry["prefix"]): value
        for key, value in tensors("dst.safetensors").items()
        if key.startswith(entry["prefix"])
    }
    mask = stored["attention_mask"]
    features = [value for key, value in sorted(stored.items()) if key.startswith("image_embeds.")]
    image_mask = stored["input_ids"] == dst_chat().image_id
    kept = [f[: int(row.sum())] for f, row in zip(features, image_mask, strict=True)]
    return Batch(
        input_ids=stored["input_ids"],
        attention_mask=mask,
        hides_tokens=True,
        image_mask=image_mask,
        image_features=torch.cat(kept),
        labels=stored["speaking_gen_labels"].masked_fill(mask == 0, IGNORE_INDEX),
        dst_labels=stored["dst_gen_labels"].masked_fill(mask == 0, IGNORE_INDEX),
        pos_frame_mask=stored["speaking_labels"] == 1,
        neg_frame_mask=stored["speaking_labels"] == 0,
        dst_pos_frame_mask=stored["dst_update_labels"] == 1,
        dst_neg_frame_mask=stored["dst_update_labels"] == 0,
        speak_targets=(stored["speaking_labels"] == 1).float(),
        dst_targets=(stored["dst_update_labels"] == 1).float(),
    )
