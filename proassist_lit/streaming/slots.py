"""Many streams through one backbone: keys and values in slots, new tokens in one ragged batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.streaming.decoder import LlamaDecoder, normalize, rotate
from proassist_lit.streaming.rotation import KeyRotation


class SlotCache:
    """Keys and values of S streams; preallocated, written in place.

    Args:
        model: gives layers, heads and type.
        num_slots: S.
        capacity: tokens of a slot.
    """

    def __init__(self, model: AssistantModel, num_slots: int, capacity: int) -> None:
        attention = model.lm.get_decoder().layers[0].self_attn
        config = model.lm.config
        weight = attention.k_proj.weight
        shape = (num_slots, config.num_key_value_heads, capacity, attention.head_dim)
        self.num_slots, self.capacity = num_slots, capacity
        self.lengths = [0] * num_slots
        # Zeros, not garbage: a hidden key is multiplied by 0, and 0 * NaN is no 0. Untouched zeros
        # take no memory on a CPU.
        self.keys = [weight.new_zeros(shape) for _ in range(config.num_hidden_layers)]
        self.values = [weight.new_zeros(shape) for _ in range(config.num_hidden_layers)]

    @staticmethod
    def bytes_per_token(model: AssistantModel) -> int:
        """Memory of one token of one slot."""
        attention = model.lm.get_decoder().layers[0].self_attn
        config = model.lm.config
        size = 2 * config.num_key_value_heads * attention.head_dim
        return int(config.num_hidden_layers * size * attention.k_proj.weight.element_size())

    def keep(
        self, slot: int, ranges: Sequence[tuple[int, int]], rotation: KeyRotation | None
    ) -> None:
        """Forget everything of a slot but ``ranges`` and close them up; see ``KVCache.keep``."""
        length = 0
        for start, end in ranges:
            if start != length and end > start:
                assert rotation is not None, "the strategy made one"
                for keys, values in zip(self.keys, self.values, strict=True):
                    place = slice(length, length + end - start)
                    keys[slot, :, place] = rotation.move(keys[slot, :, start:end], start, length)
                    values[slot, :, place] = values[slot, :, start:end].clone()
            length += end - start
        self.lengths[slot] = length

    def move(self, source: int, target: int) -> None:
        """Copy slot ``source`` over slot ``target``."""
        length = self.lengths[source]
        for tensors in (self.keys, self.values):
            for tensor in tensors:
                tensor[target, :, :length] = tensor[source, :, :length]
        self.lengths[target] = length


class SlotDecoder:
    """Feeds new tokens of many slots to a Llama-type backbone in one go.

    Linear layers see the tokens of all slots as rows of one matrix. Attention is one product for
    all slots that feed a single token (they write), and one for each slot that feeds several.

    Args:
        model: its backbone must satisfy ``LlamaDecoder.fits``.
    """

    def __init__(self, model: AssistantModel) -> None:
        decoder = model.lm.get_decoder()
        self._layers, self._norm = list(decoder.layers), decoder.norm
        self._rotary = decoder.rotary_emb
        config = model.lm.config
        self._head_size = int(self._layers[0].self_attn.head_dim)
        self._kv_heads = int(config.num_key_value_heads)
        self._group = int(config.num_attention_heads) // self._kv_heads
        self._qk_norm = LlamaDecoder.norms_heads(model)
        self._cos = self._sin = torch.empty(0)

    def __call__(self, inputs_embeds: Tensor, counts: Sequence[int], cache: SlotCache) -> Tensor:
        """Extend the slots.

        Args:
            inputs_embeds: (N, D), the new tokens of slot 0, of slot 1, and so on.
            counts: new tokens of each slot from the first; sum N.
            cache: extended in place.

        Returns:
            (N, D) last hidden states after the final norm.
        """
        plan = _Plan(counts, cache, inputs_embeds.device)
        cos, sin = self._rotation(plan.end, inputs_embeds)
        cos, sin = cos[plan.positions], sin[plan.positions]
        mask = plan.single_mask(inputs_embeds.dtype)
        x = inputs_embeds
        for index, layer in enumerate(self._layers):
            attention = layer.self_attn
            h = normalize(x, layer.input_layernorm)
            shape = (len(x), -1, self._head_size)
            query, key = attention.q_proj(h).view(shape), attention.k_proj(h).view(shape)
            if self._qk_norm:
                query, key = normalize(query, attention.q_norm), normalize(key, attention.k_norm)
            query, key = rotate(query, cos, sin), rotate(key, cos, sin)
            keys, values = cache.keys[index], cache.values[index]
            keys[plan.slots, :, plan.positions] = key
            values[plan.slots, :, plan.positions] = attention.v_proj(h).view(shape)
            mixed = self._attend(query, keys, values, plan, mask, attention.scaling)
            x = x + attention.o_proj(mixed)
            h = normalize(x, layer.post_attention_layernorm)
            mlp = layer.mlp
            x = x + mlp.down_proj(F.silu(mlp.gate_proj(h)) * mlp.up_proj(h))
        for slot, count in enumerate(counts):
            cache.lengths[slot] += count
        return normalize(x, self._norm)

    def _attend(
        self, query: Tensor, keys: Tensor, values: Tensor, plan: _Plan, mask: Tensor | None,
        scale: float,
    ) -> Tensor:  # fmt: skip
        """(N, heads, size) queries to (N, heads * size) mixed values.

        The queries that share keys (a group) are rows of one product: keys are never expanded.
        """
        group, kv_heads, size = self._group, self._kv_heads, self._head_size
        out = torch.empty_like(query)
        if mask is not None:
            rows, slots, length = plan.single_rows, plan.num_single, plan.single_length
            q = query.new_zeros(slots, kv_heads, group, size)
            q[plan.single_slots] = query[rows].view(-1, kv_heads, group, size)
            mixed = F.scaled_dot_product_attention(
                q, keys[:slots, :, :length], values[:slots, :, :length], attn_mask=mask, scale=scale
            )
            out[rows] = mixed[plan.single_slots].view(len(rows), -1, size)
        for slot, start, count, length, block_mask in plan.blocks(query.dtype, group):
            q = query[start : start + count].view(count, kv_heads, group, size)
            q = q.permute(1, 0, 2, 3).reshape(1, kv_heads, count * group, size)
            mixed = F.scaled_dot_product_attention(
                q, keys[slot : slot + 1, :, :length], values[slot : slot + 1, :, :length],
                attn_mask=block_mask, scale=scale,
            )  # fmt: skip
            mixed = mixed.view(kv_heads, count, group, size).permute(1, 0, 2, 3)
            out[start : start + count] = mixed.reshape(count, -1, size)
        return out.flatten(1)

    def _rotation(self, end: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """(T, 1, size) cosines and sines of the positions up to ``end``."""
        if end > len(self._cos) or self._cos.dtype != like.dtype:
            positions = torch.arange(max(2 * end, 1024), device=like.device)[None]
            cos, sin = self._rotary(like[None], positions)
            self._cos, self._sin = cos[0].unsqueeze(1), sin[0].unsqueeze(1)
        return self._cos, self._sin


class _Plan:
    """Where the rows of a ragged batch stand."""

    def __init__(self, counts: Sequence[int], cache: SlotCache, device: torch.device) -> None:
        self._device = device
        slots: list[int] = []
        positions: list[int] = []
        self._blocks: list[tuple[int, int, int, int]] = []  # slot, first row, rows, keys
        singles: list[tuple[int, int]] = []  # slot, row
        for slot, count in enumerate(counts):
            past = cache.lengths[slot]
            if count == 1:
                singles.append((slot, len(slots)))
            elif count:
                self._blocks.append((slot, len(slots), count, past + count))
            slots += [slot] * count
            positions += range(past, past + count)
        self.end = max(positions) + 1
        if len(singles) * 2 < (singles[-1][0] + 1 if singles else 0):  # mostly gaps: one by one
            self._blocks += [(s, row, 1, cache.lengths[s] + 1) for s, row in singles]
            singles = []
        self.slots = torch.tensor(slots, device=device)
        self.positions = torch.tensor(positions, device=device)
        self.num_single = singles[-1][0] + 1 if singles else 0
        self.single_slots = torch.tensor([slot for slot, _ in singles], device=device)
        self.single_rows = torch.tensor([row for _, row in singles], device=device)
        self._single_lengths = [0] * self.num_single
        for slot, _ in singles:
            self._single_lengths[slot] = cache.lengths[slot] + 1
        self.single_length = max(self._single_lengths, default=0)
        self._masks: list[Tensor | None] | None = None

    def single_mask(self, dtype: torch.dtype) -> Tensor | None:
        """(slots, 1, 1, keys) additive mask of the slots that feed one token; None if none do."""
        if not self.num_single:
            return None
        lengths = torch.tensor(self._single_lengths, device=self._device)
        # a slot that does not take part looks at its first key, to stay finite
        keys = torch.arange(self.single_length, device=self._device)
        hidden = keys >= lengths.clamp(min=1)[:, None]
        mask = torch.zeros(hidden.shape, dtype=dtype, device=self._device)
        return mask.masked_fill_(hidden, float("-inf"))[:, None, None]

    def blocks(
        self, dtype: torch.dtype, group: int
    ) -> list[tuple[int, int, int, int, Tensor | None]]:
        """Slot, first row, rows, keys and (rows * group, keys) mask of the slots that feed more."""
        if self._masks is None:
            self._masks = [self._block_mask(b[2], b[3], dtype, group) for b in self._blocks]
        return [(*block, m) for block, m in zip(self._blocks, self._masks, strict=True)]

    def _block_mask(self, rows: int, keys: int, dtype: torch.dtype, group: int) -> Tensor | None:
        if rows == 1:
            return None
        mask = torch.full((rows, keys), float("-inf"), dtype=dtype, device=self._device)
        return mask.triu_(keys - rows + 1).repeat_interleave(group, dim=0)
