"""What ProAssist and its DST extension call the tensors beside the backbone, and our names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

PROJECTOR, SPEAK = "mm_projector", "binary_decision_head"
"""Modules of ProAssist."""

OURS = {
    PROJECTOR: "projector",
    SPEAK: "speak_head.net",
    "speaking_decision_head": "speak_head.net",
    "dst_update_head": "dst_head.net",
    "dst_generation_head": "dst_output_head",
}
"""Our names of their modules; the last three are the DST extension's."""


def is_beside(name: str) -> bool:
    """Whether a tensor of theirs belongs to no backbone."""
    return name.partition(".")[0] in OURS


def to_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors beside the backbone by our names.

    ProAssist's head predicts not talking, ours speaking: weight and bias of its last layer are
    negated. The extension's heads predict as ours do.
    """
    out = {}
    last = _last_layer(tensors, SPEAK)
    for name, tensor in tensors.items():
        module, _, rest = name.partition(".")
        out[f"{OURS[module]}.{rest}"] = -tensor if name.startswith(last) else tensor
    return out


def to_theirs(tensors: Mapping[str, Tensor], *, dst: bool) -> dict[str, Tensor]:
    """Our tensors beside the backbone by their names; the way back from ``to_ours``.

    Args:
        tensors: of projector and heads, by our names.
        dst: as the DST extension has them; otherwise as ProAssist.
    """
    left_out = SPEAK if dst else "speaking_decision_head"
    names = {ours: theirs for theirs, ours in OURS.items() if theirs != left_out}
    out = {}
    for name, tensor in tensors.items():
        module = next(ours for ours in names if name.startswith(f"{ours}."))
        out[names[module] + name.removeprefix(module)] = tensor
    last = _last_layer(out, SPEAK)
    return {name: -tensor if name.startswith(last) else tensor for name, tensor in out.items()}


def _last_layer(tensors: Mapping[str, Tensor], module: str) -> tuple[str, ...]:
    """Beginning of the names of a head's last layer; none if there is no such head."""
    layers = {int(found[1]) for name in tensors if (found := re.match(rf"{module}\.(\d+)\.", name))}
    return (f"{module}.{max(layers)}.",) if layers else (f"{module}.",)
