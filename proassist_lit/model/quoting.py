"""Lets a Llama from scratch begin with an induction circuit: it can quote what stands before it.

To say "now wash carrots" the model must find the plan's "wash" and copy what follows it. Every
pretrained language model can; from scratch it is learnt late and suddenly, from far more text than
a quick start has. So two kinds of heads begin wired; all weights stay free to train:

1. a head of the first layer looks one token back and writes what it sees into a subspace of its
   own;
2. heads of the second layer look for the place whose *token before* equals the token at hand, and
   copy the token they find there.

Source: Olsson et al., In-context learning and induction heads, arXiv:2209.11895.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_BACK_PAIRS, _BACK_STRENGTH = 4, 7.0
"""Rotary pairs that carry the preference for the token before, and the size of their biases."""

_SLOW_TURN = 0.01
"""Content is matched in pairs that turn slower than this per token, radians: hundreds of tokens lie
between the plan and its quotation."""

_EMBEDDING_STD, _OTHERS_SCALE = 0.15, 0.2
"""Embeddings must be heard above what the untrained rest writes into the same stream."""

_WRITE_SCALE, _MATCH_SCALE, _COPY_SCALE = 0.3, 4.0, 1.0


@torch.no_grad()
def wire_quoting(model: Any) -> None:
    """Wire the circuit into the first two layers of ``model``.

    Args:
        model: Hugging Face Llama with biases on queries and keys, and at least two layers and two
            heads.
    """
    decoder = model.get_decoder()
    first, second = decoder.layers[0].self_attn, decoder.layers[1].self_attn
    size, hidden = first.head_dim, model.config.hidden_size
    thetas = decoder.rotary_emb.inv_freq

    model.get_input_embeddings().weight.normal_(0.0, _EMBEDDING_STD)
    for layer in decoder.layers:
        layer.self_attn.o_proj.weight *= _OTHERS_SCALE
        layer.mlp.down_proj.weight *= _OTHERS_SCALE

    # 1. Biases that rotary positions turn into a preference: with b_k = v, and b_q = v turned back
    # by one position, the score at distance x is the sum of |v|^2 cos(theta (x - 1)).
    pairs, sines = slice(0, _BACK_PAIRS), slice(size // 2, size // 2 + _BACK_PAIRS)
    angles = thetas[:_BACK_PAIRS]
    first.k_proj.bias[pairs] = _BACK_STRENGTH
    first.q_proj.bias[pairs] = _BACK_STRENGTH * angles.cos()
    first.q_proj.bias[sines] = -_BACK_STRENGTH * angles.sin()
    read, write = _orthonormal(size, hidden), _orthonormal(size, hidden)
    first.v_proj.weight[:size] = read
    first.o_proj.weight[:, :size] = _WRITE_SCALE * write.T

    # 2. Queries read the token at hand, keys what was written about the token before.
    slow = (thetas < _SLOW_TURN).nonzero().flatten()
    slow = torch.cat([slow, slow + size // 2])
    for head in range(2):
        rows = slice(head * size, (head + 1) * size)
        part = torch.arange(len(slow)) + head * (size - len(slow))  # the two overlap
        query, key = torch.zeros(size, hidden), torch.zeros(size, hidden)
        query[slow], key[slow] = _MATCH_SCALE * read[part], _MATCH_SCALE * write[part]
        second.q_proj.weight[rows], second.k_proj.weight[rows] = query, key
        copy = _orthonormal(size, hidden)
        second.v_proj.weight[rows] = copy
        second.o_proj.weight[:, rows] = _COPY_SCALE * copy.T


def _orthonormal(rows: int, columns: int) -> Tensor:
    """(rows, columns) random matrix with orthonormal rows."""
    basis: Tensor = torch.linalg.qr(torch.randn(columns, rows)).Q
    return basis.T
