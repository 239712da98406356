"""Kernels of a decoder layer on a GPU, in Triton: all that is no matrix product of weights.

Rows are new tokens of many streams. A *tile* is some neighbouring tokens of one stream, with all
query heads that share a head of keys: the rows of one small product. Keys and values are found
through addresses that lie on the device, so that a captured graph serves any cache.

Sources: FlashAttention, arXiv:2205.14135; its splitting of long contexts (Flash-Decoding), Dao,
Haziza, Massa and Sizov, 2023.
"""

import triton
import triton.language as tl


@triton.jit
def add_and_normalize(
    x, delta, weight, out, eps, SIZE: tl.constexpr, BLOCK: tl.constexpr, ADDS: tl.constexpr
):
    """``x += delta`` and its root mean square norm, one program a row.

    Numbers are rounded where Hugging Face's norm rounds them.
    """
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    inside = i < SIZE
    value = tl.load(x + row * SIZE + i, mask=inside, other=0.0)
    if ADDS:
        more = tl.load(delta + row * SIZE + i, mask=inside, other=0.0)
        value = (value.to(tl.float32) + more.to(tl.float32)).to(value.dtype)
        tl.store(x + row * SIZE + i, value, mask=inside)
    wide = value.to(tl.float32)
    mean = tl.sum(wide * wide, 0) / SIZE
    unit = (wide * tl.rsqrt(mean + eps)).to(value.dtype)
    scaled = unit.to(tl.float32) * tl.load(weight + i, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * SIZE + i, scaled.to(value.dtype), mask=inside)


@triton.jit
def place(
    qkv, query_norm, key_norm, query, addresses, capacity, slots, positions, cos, sin, eps,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, SIZE: tl.constexpr, HALF: tl.constexpr,
    NORMS: tl.constexpr,
):  # fmt: skip
    """Rotate queries and keys, and write keys and values into the cache.

    One program for a head of a row: queries, then keys, then values. Rows of slot -1 are nobody's.
    """
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slot = tl.load(slots + row).to(tl.int64)
    position = tl.load(positions + row).to(tl.int64)
    i = tl.arange(0, HALF)
    source = qkv + (row * (HEADS + 2 * KV_HEADS) + head) * SIZE
    first, second = tl.load(source + i), tl.load(source + HALF + i)
    if head < HEADS + KV_HEADS:
        a, b = first.to(tl.float32), second.to(tl.float32)
        if NORMS:
            mean = (tl.sum(a * a, 0) + tl.sum(b * b, 0)) / SIZE
            by = tl.rsqrt(mean + eps)
            weight = query_norm
            if head >= HEADS:
                weight = key_norm
            a = (a * by).to(first.dtype).to(tl.float32) * tl.load(weight + i).to(tl.float32)
            b = (b * by).to(first.dtype).to(tl.float32) * tl.load(weight + HALF + i).to(tl.float32)
        c = tl.load(cos + position * SIZE + i).to(tl.float32)
        s = tl.load(sin + position * SIZE + i).to(tl.float32)
        first, second = (a * c - b * s).to(first.dtype), (b * c + a * s).to(first.dtype)
    if head < HEADS:
        target = query + (row * HEADS + head) * SIZE
        tl.store(target + i, first)
        tl.store(target + HALF + i, second)
    elif slot >= 0:
        which = (head - HEADS) // KV_HEADS  # keys, or values
        base = tl.load(addresses + which).to(tl.pointer_type(first.dtype))
        kv_head = (head - HEADS) % KV_HEADS
        where = (slot * KV_HEADS + kv_head) * tl.load(capacity) + position
        tl.store(base + where * SIZE + i, first)
        tl.store(base + where * SIZE + HALF + i, second)


@triton.jit
def attend(
    query, addresses, capacity, tiles, out, parts, stats, scale,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr,
    KEYS: tl.constexpr, SPLITS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Mix the values that a tile sees; one program for a tile, a head of keys, a share of them.

    ``scale`` counts the exponential as one of base 2. With several shares, ``combine`` follows.
    """
    tile, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    slot = tl.load(tiles + 4 * tile).to(tl.int64)
    if slot < 0:
        return
    row, count = tl.load(tiles + 4 * tile + 1), tl.load(tiles + 4 * tile + 2)
    past = tl.load(tiles + 4 * tile + 3)
    m = tl.arange(0, ROWS)
    d = tl.arange(0, SIZE)
    token, member = m // GROUP, m % GROUP
    real = token < count
    place_of = ((row + token) * KV_HEADS * GROUP + head * GROUP + member) * SIZE
    q = tl.load(query + place_of[:, None] + d[None, :], mask=real[:, None], other=0.0)

    total = past + count
    share = tl.cdiv(tl.cdiv(total, SPLITS), KEYS) * KEYS
    start = split * share
    end = tl.minimum(start + share, total)
    base = (slot * KV_HEADS + head) * tl.load(capacity) * SIZE
    keys = tl.load(addresses).to(tl.pointer_type(q.dtype))
    values = tl.load(addresses + 1).to(tl.pointer_type(q.dtype))
    keys, values = tl.multiple_of(keys, 16) + base, tl.multiple_of(values, 16) + base
    sees = tl.minimum(past + token + 1, end)

    top = tl.full([ROWS], float("-inf"), tl.float32)
    weight = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, SIZE], tl.float32)
    for n in range(start, end, KEYS):
        i = n + tl.arange(0, KEYS)
        there = (i < end)[:, None]
        k = tl.load(keys + i[:, None] * SIZE + d[None, :], mask=there, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        scores = tl.where(i[None, :] < sees[:, None], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        level = tl.where(higher == float("-inf"), 0.0, higher)
        p = tl.exp2(scores - level[:, None])
        shrink = tl.exp2(top - level)
        weight = weight * shrink + tl.sum(p, 1)
        v = tl.load(values + i[:, None] * SIZE + d[None, :], mask=there, other=0.0)
        mixed = mixed * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
        top = higher

    if SPLITS == 1:
        mixed = mixed / tl.where(weight > 0, weight, 1.0)[:, None]
        tl.store(out + place_of[:, None] + d[None, :], mixed.to(q.dtype), mask=real[:, None])
    else:
        part = ((tile * KV_HEADS + head) * ROWS + m) * SPLITS + split
        tl.store(parts + part[:, None] * SIZE + d[None, :], mixed, mask=real[:, None])
        tl.store(stats + 2 * part, top, mask=real)
        tl.store(stats + 2 * part + 1, weight, mask=real)


@triton.jit
def combine(
    tiles, out, parts, stats,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr,
    SPLITS: tl.constexpr,
):  # fmt: skip
    """Add up the shares of ``attend``; one program for a tile, a head of keys, a row."""
    tile, head, m = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    token = m // GROUP
    if token >= tl.load(tiles + 4 * tile + 2):  # 0 tokens in a tile of nobody
        return
    row = tl.load(tiles + 4 * tile + 1)
    d = tl.arange(0, SIZE)
    part = ((tile * KV_HEADS + head) * ROWS + m) * SPLITS + tl.arange(0, SPLITS)
    top, weight = tl.load(stats + 2 * part), tl.load(stats + 2 * part + 1)
    share = tl.exp2(top - tl.max(top, 0))
    mixed = tl.load(parts + part[:, None] * SIZE + d[None, :])
    mixed = tl.sum(mixed * share[:, None], 0) / tl.sum(weight * share, 0)
    place_of = ((row + token) * KV_HEADS * GROUP + head * GROUP + m % GROUP) * SIZE
    tl.store(out + place_of + d, mixed.to(out.dtype.element_ty))


@triton.jit
def gate(gates, ups, out, count, BLOCK: tl.constexpr):
    """silu(gate) * up, rounded where the layer rounds."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    g = tl.load(gates + i, mask=inside, other=0.0)
    u = tl.load(ups + i, mask=inside, other=0.0)
    wide = g.to(tl.float32)
    opened = (wide / (1.0 + tl.exp(-wide))).to(g.dtype)
    product = opened.to(tl.float32) * u.to(tl.float32)
    tl.store(out + i, product.to(g.dtype), mask=inside)
