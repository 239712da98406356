"""What things look like in stand-in frames: a colour and a shape for every name."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from proassist_lit.data.seeding import stable_rng

SHAPES = ("disc", "square", "triangle", "diamond", "ring", "cross", "bar", "pillar", "moon", "bowl")

HUES = {
    "red": (206, 44, 40),
    "orange": (240, 138, 26),
    "yellow": (244, 214, 48),
    "green": (52, 160, 62),
    "teal": (26, 168, 170),
    "blue": (48, 92, 214),
    "purple": (140, 66, 190),
    "pink": (240, 120, 170),
    "brown": (122, 74, 38),
    "grey": (120, 124, 130),
}


@dataclass(frozen=True)
class Appearance:
    """Colour (8-bit RGB) and shape of a thing."""

    color: tuple[int, int, int]
    shape: str


# Look-alikes on purpose: every colour is shared by several things, and so is every shape.
ITEMS: dict[str, tuple[str, str]] = {
    "carrots": ("orange", "bar"),
    "pumpkins": ("orange", "disc"),
    "potatoes": ("brown", "disc"),
    "parsnips": ("yellow", "pillar"),
    "leeks": ("green", "pillar"),
    "cabbages": ("green", "disc"),
    "beets": ("purple", "disc"),
    "eggplants": ("purple", "pillar"),
    "tomatoes": ("red", "disc"),
    "chilies": ("red", "bar"),
    "apples": ("red", "diamond"),
    "limes": ("green", "diamond"),
    "lemons": ("yellow", "diamond"),
    "bananas": ("yellow", "moon"),
    "melons": ("green", "moon"),
    "plums": ("purple", "diamond"),
    "shelves": ("brown", "bar"),
    "posts": ("brown", "pillar"),
    "panels": ("brown", "square"),
    "brackets": ("grey", "triangle"),
    "hinges": ("grey", "cross"),
    "pipes": ("grey", "bar"),
    "ribbons": ("pink", "bar"),
    "cloths": ("pink", "square"),
    "cards": ("yellow", "square"),
    "patches": ("teal", "square"),
    "beads": ("teal", "ring"),
    "buttons": ("blue", "ring"),
    "tulips": ("pink", "bowl"),
    "ferns": ("green", "cross"),
    "bulbs": ("pink", "disc"),
    "pots": ("blue", "bowl"),
}

TOOLS: dict[str, tuple[str, str]] = {
    "knife": ("grey", "pillar"),
    "peeler": ("orange", "pillar"),
    "grater": ("yellow", "square"),
    "brush": ("blue", "bar"),
    "masher": ("red", "cross"),
    "pan": ("purple", "disc"),
    "saw": ("teal", "bar"),
    "drill": ("red", "triangle"),
    "sander": ("pink", "square"),
    "roller": ("green", "bar"),
    "scissors": ("pink", "cross"),
    "needle": ("yellow", "pillar"),
    "stamp": ("blue", "square"),
    "trowel": ("green", "triangle"),
    "shears": ("orange", "cross"),
    "hose": ("teal", "ring"),
}


@lru_cache(maxsize=4096)
def appearance(name: str) -> Appearance:
    """Look of ``name``: from the tables, or for any other name always the same invented one."""
    known = ITEMS.get(name) or TOOLS.get(name)
    if known is not None:
        return Appearance(HUES[known[0]], known[1])
    rng = stable_rng("appearance", name)
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), 0.5 + 0.5 * rng.random(), 0.9)
    color = (int(255 * red), int(255 * green), int(255 * blue))
    return Appearance(color, SHAPES[int(rng.integers(len(SHAPES)))])


@lru_cache(maxsize=256)
def shape_mask(shape: str, size: int) -> NDArray[np.bool_]:
    """(size, size) bool picture of ``shape``."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    y, x = axis[:, None], axis[None, :]
    radius = np.hypot(x, y)
    masks = {
        "disc": radius < 0.95,
        "square": (np.abs(x) < 0.85) & (np.abs(y) < 0.85),
        "triangle": (y > -0.9) & (y < 0.9) & (np.abs(x) < (y + 0.9) / 1.9),
        "diamond": np.abs(x) + np.abs(y) < 1.0,
        "ring": (radius < 0.98) & (radius > 0.5),
        "cross": (np.abs(x) < 0.33) | (np.abs(y) < 0.33),
        "bar": np.broadcast_to(np.abs(y) < 0.42, (size, size)),
        "pillar": np.broadcast_to(np.abs(x) < 0.42, (size, size)),
        "moon": (radius < 0.98) & (np.hypot(x - 0.1, y + 0.55) > 0.75),
        "bowl": (radius < 0.98) & (y > -0.15),
    }
    return np.ascontiguousarray(masks[shape])
