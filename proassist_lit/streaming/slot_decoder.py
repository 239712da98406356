"""Feeds the backbone new tokens of many streams in one ragged batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.streaming.compiled_llama import compile_llama
from proassist_lit.streaming.config import Kernels
from proassist_lit.streaming.decoder import LlamaDecoder
from proassist_lit.streaming.llama import Llama
from proassist_lit.streaming.native import native_or_none
from proassist_lit.streaming.products import pad_rows
from proassist_lit.streaming.slot_cache import SlotCache

Counts = Mapping[int, int]
"""New tokens of each slot that is fed, ascending by slot."""

TOGETHER = 16
"""Neighbouring slots whose single tokens look back in one product, up to the longest of them."""


class SlotDecoder:
    """Feeds new tokens of many slots to a Llama-type backbone in one go.

    Linear layers see the tokens of all slots as rows of one matrix. In attention the slots that
    feed a single token (they write) are taken some neighbours at a time, those that feed several
    one by one. That is torch; where there are compiled kernels, they do it all.

    Args:
        model: its backbone must satisfy ``Llama.fits``.
        kernels: compiled or torch.
    """

    def __init__(self, model: AssistantModel, kernels: Kernels = Kernels.AUTO) -> None:
        self._compiled = native_or_none(lambda: compile_llama(model), kernels, model.dtype)
        self._llama = Llama(model, merged=self._compiled is None)
        self._lone = LlamaDecoder(model)

    def __call__(self, inputs_embeds: Tensor, counts: Counts, cache: SlotCache) -> Tensor:
        """Extend the slots.

        Args:
            inputs_embeds: (N, D), the new tokens of the first slot, of the second, and so on.
            counts: new tokens of each slot that is fed, ascending by slot; they sum N.
            cache: extended in place.

        Returns:
            (N, D) last hidden states after the final norm.
        """
        if self._compiled is not None:
            runs = [(slot, cache.lengths[slot], count) for slot, count in counts.items()]
            hidden = self._compiled(inputs_embeds, runs, cache.keys, cache.values)
        else:
            hidden = self._by_torch(inputs_embeds, counts, cache)
        for slot, count in counts.items():
            cache.lengths[slot] += count
        return hidden

    def alone(self, inputs_embeds: Tensor, slot: int, cache: SlotCache) -> Tensor:
        """Extend one slot as a session does, which rounds in its own way.

        Args:
            inputs_embeds: (T, D), the new tokens.
            slot: which.
            cache: extended in place.

        Returns:
            (D,) last hidden state.
        """
        if self._compiled is not None:
            return self(inputs_embeds, {slot: len(inputs_embeds)}, cache)[-1]
        view = cache.view(slot)
        hidden = self._lone(inputs_embeds, view)
        cache.lengths[slot] = len(view)
        return hidden

    def _by_torch(self, inputs_embeds: Tensor, counts: Counts, cache: SlotCache) -> Tensor:
        num_rows = len(inputs_embeds)
        plan = _Plan(counts, cache, inputs_embeds, self._llama.group)
        cos, sin = (table[plan.positions] for table in self._llama.angles(plan.end, inputs_embeds))
        x = inputs_embeds
        if self._llama.is_merged:
            x, cos, sin = pad_rows(x), pad_rows(cos), pad_rows(sin)

        def attend(index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = cache.keys[index], cache.values[index]
            keys[plan.slots, :, plan.positions] = key[:num_rows]
            values[plan.slots, :, plan.positions] = value[:num_rows]
            return self._attend(query, keys, values, plan)

        return self._llama(x, (cos, sin), attend)[:num_rows]

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, plan: _Plan) -> Tensor:
        """(N, heads, size) queries to (N, heads * size) mixed values.

        The queries that share keys (a group) are rows of one product: keys are never expanded.
        """
        llama = self._llama
        kv_heads, group, size = llama.kv_heads, llama.group, llama.head_size
        out = torch.zeros_like(query)
        if plan.bunches:
            first = plan.bunches[0].first
            q = query.new_zeros(plan.bunches[-1].last - first, kv_heads, group, size)
            q[plan.single_slots - first] = query[plan.single_rows].view(-1, kv_heads, group, size)
            q = (q * llama.scale).flatten(0, 1)
            mixed = torch.empty_like(q)
            keys_of, values_of = keys.flatten(0, 1), values.flatten(0, 1)
            for bunch in plan.bunches:
                there = slice(bunch.first * kv_heads, bunch.last * kv_heads)
                here = slice((bunch.first - first) * kv_heads, (bunch.last - first) * kv_heads)
                scores = torch.bmm(q[here], keys_of[there, : bunch.length].transpose(1, 2))
                if bunch.mask is not None:
                    scores += bunch.mask
                mixed[here] = torch.bmm(scores.softmax(-1), values_of[there, : bunch.length])
            mixed = mixed.view(-1, kv_heads * group, size)
            out[plan.single_rows] = mixed[plan.single_slots - first]
        for block in plan.blocks:
            rows = slice(block.row, block.row + block.count)
            q = query[rows].view(block.count, kv_heads, group, size)
            q = q.permute(1, 0, 2, 3).reshape(1, kv_heads, block.count * group, size)
            mixed = F.scaled_dot_product_attention(
                q,
                keys[block.slot, :, : block.length][None],
                values[block.slot, :, : block.length][None],
                attn_mask=block.mask,
                scale=llama.scale,
            )
            mixed = mixed.view(kv_heads, block.count, group, size).permute(1, 0, 2, 3)
            out[rows] = mixed.reshape(block.count, -1, size)
        return out.flatten(1)


@dataclass(frozen=True)
class _Bunch:
    """Neighbouring slots that feed one token each, but for gaps."""

    first: int
    last: int  # one past the last
    length: int  # keys of the longest
    mask: Tensor | None  # (slots * kv_heads, 1, keys), additive


@dataclass(frozen=True)
class _Block:
    """A slot that feeds several tokens."""

    slot: int
    row: int  # its first
    count: int  # rows
    length: int  # keys
    mask: Tensor | None  # (rows * group, keys), additive


class _Plan:
    """Where the rows of a ragged batch stand, and what they look at."""

    def __init__(self, counts: Counts, cache: SlotCache, like: Tensor, group: int) -> None:
        self._like, self._kv_heads = like, cache.keys[0].shape[1]
        slots: list[int] = []
        positions: list[int] = []
        self.blocks: list[_Block] = []
        singles: list[tuple[int, int]] = []  # slot, row
        for slot, count in counts.items():
            past = cache.lengths[slot]
            if count == 1:
                singles.append((slot, len(slots)))
            else:
                self.blocks.append(self._block(slot, len(slots), count, past + count, group))
            slots += [slot] * count
            positions += range(past, past + count)
        self.end = max(positions) + 1
        self.bunches: list[_Bunch] = []
        together: list[tuple[int, int]] = []
        for start in range(0, max(counts) + 1, TOGETHER):
            mine = [(slot, row) for slot, row in singles if start <= slot < start + TOGETHER]
            if 2 * len(mine) <= min(TOGETHER, max(counts) + 1 - start):  # gaps: one by one
                self.blocks += [_Block(s, row, 1, cache.lengths[s] + 1, None) for s, row in mine]
                continue
            together += mine
            last = mine[-1][0] + 1
            lengths = [
                cache.lengths[s] + 1 if counts.get(s) == 1 else 1 for s in range(start, last)
            ]
            self.bunches.append(_Bunch(start, last, max(lengths), self._hide_beyond(lengths)))
        self.slots = torch.tensor(slots, device=like.device)
        self.positions = torch.tensor(positions, device=like.device)
        self.single_slots = torch.tensor([slot for slot, _ in together], device=like.device)
        self.single_rows = torch.tensor([row for _, row in together], device=like.device)

    def _hide_beyond(self, lengths: list[int]) -> Tensor | None:
        """Mask of the keys behind each slot's own; a slot that feeds nothing sees its first."""
        if min(lengths) == max(lengths):
            return None
        ends = torch.tensor(lengths, device=self._like.device)
        hidden = torch.arange(max(lengths), device=self._like.device) >= ends[:, None]
        mask = self._like.new_zeros(hidden.shape).masked_fill_(hidden, float("-inf"))
        return mask[:, None].repeat_interleave(self._kv_heads, dim=0)

    def _block(self, slot: int, row: int, count: int, length: int, group: int) -> _Block:
        mask = self._like.new_full((count, length), float("-inf"))
        mask = mask.triu_(length - count + 1).repeat_interleave(group, dim=0)
        return _Block(slot, row, count, length, mask)
