"""What arrives at a frame, made ready to be fed: the picture or its features, and text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from proassist_lit.errors import StreamError
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.script import Text


def as_texts(user_text: str | Sequence[Text] | None) -> tuple[Text, ...]:
    """Turns of text; a string is what a user says, an empty one is nothing, as is None."""
    if isinstance(user_text, str):
        return (Text(role=Role.USER, content=user_text),) if user_text else ()
    return tuple(user_text or ())


def read_features(frame: Any, encode: Callable[[Any], Tensor] | None) -> Tensor:
    """(K, E) features of ``frame``, yet to be checked.

    Args:
        frame: (K, E) features, or, with an encoder, an (H, W, 3) uint8 picture.
        encode: makes features of a picture; None without an encoder.
    """
    if encode is None or (isinstance(frame, Tensor) and frame.ndim == 2):
        features: Tensor = frame
        return features
    return encode(frame)


def check_features(features: Tensor, num_tokens_per_img: int, where: str) -> None:
    """Refuse features that no frame can have.

    Args:
        features: should be (K, E) and finite.
        num_tokens_per_img: K.
        where: stream and frame, for the message.

    Raises:
        StreamError: they have another shape, or are not finite.
    """
    if features.ndim != 2 or features.shape[0] != num_tokens_per_img:
        raise StreamError(
            f"{where}: features are {tuple(features.shape)}, expected ({num_tokens_per_img}, E); "
            "encode with the grids that data.num_tokens_per_img names."
        )
    if not torch.isfinite(features).all():
        raise StreamError(f"{where}: features hold NaN or infinite values; encode the video again.")
