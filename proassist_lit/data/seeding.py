"""Random generators that depend on names only: the same on every machine, rank and worker."""

from __future__ import annotations

import hashlib

import numpy as np


def stable_seed(*parts: object) -> int:
    """63-bit integer made from ``parts``; equal parts give equal seeds in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stable_rng(*parts: object) -> np.random.Generator:
    """Generator seeded by ``parts``. Python's ``hash`` would differ from process to process."""
    return np.random.default_rng(stable_seed(*parts))
