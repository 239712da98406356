"""The encoder that a run's features were made with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from proassist_lit.data.dataset import ConversationSet
from proassist_lit.data.feature_content import read_notes
from proassist_lit.errors import ConfigError, FeatureError
from proassist_lit.vision.encoder import FrameEncoder
from proassist_lit.vision.encoders import load_encoder
from proassist_lit.vision.network import NetworkOptions


def load_run_encoder(
    data: ConversationSet, device: torch.device, *, name: str | None = None
) -> FrameEncoder:
    """Load the encoder that made the features of ``data``.

    Drawn data names it in its configuration. Of prepared data, the feature files say by which
    encoder ``proassist-lit encode`` made them, and how it was run.

    Args:
        data: a split of the run's data.
        device: where it shall compute.
        name: take this encoder instead.

    Raises:
        ConfigError: nobody says which one it is, it cannot be loaded, or its weights are others.
    """
    if name is not None:
        return load_encoder(name, NetworkOptions(device=device))
    if not data.config.is_prepared:
        return load_encoder(data.config.encoder, NetworkOptions(device=device))
    path = data.feature_path(data.conversations[0])
    return load_encoder_that_made(read_how_made(data), device, where=str(path))


def load_encoder_that_made(
    made: Mapping[str, Any], device: torch.device, *, where: str
) -> FrameEncoder:
    """Load an encoder by what its features say of it.

    Args:
        made: as ``read_how_made`` gives it.
        device: where it shall compute.
        where: file that says so, for messages.

    Raises:
        FeatureError: something is not said.
        ConfigError: it cannot be loaded, or its weights are others.
    """
    try:
        options = NetworkOptions(device=device)
        if not made["encoder"].startswith("thumbnail"):
            options = NetworkOptions(
                device=device,
                # Half precision is an accelerator's: elsewhere it is as slow as it is coarse.
                dtype=getattr(torch, made["dtype"]) if made["device"] == device.type else None,
                layer=int(made["layer"]),
                preprocessing=made["preprocessing"],
            )
        # As the folder of its features is named: google___siglip-so400m-patch14-384@-2
        wanted = made["encoder"].partition("@")[0].replace("___", "/")
        revision = made["revision"]
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise FeatureError(
            f"{where}: does not say in full how it was made ({error!r}); name the encoder by "
            "--encoder."
        ) from error
    try:
        encoder = load_encoder(wanted, options)
    except ConfigError as error:
        raise ConfigError(
            f"the features of the run were made with the encoder {wanted}: {error} Or name it by "
            "--encoder, a folder, say."
        ) from error
    if encoder.revision != revision:
        raise ConfigError(
            f"encoder {wanted}: its weights are {encoder.revision}, but the features of the run "
            f"were made with {revision}; install those, or insist by --encoder {wanted}."
        )
    return encoder


def read_how_made(data: ConversationSet) -> dict[str, Any]:
    """What the features of prepared data say of how ``proassist-lit encode`` made them.

    Raises:
        ConfigError: they say nothing.
        FeatureError: they are missing or damaged.
    """
    path = data.feature_path(data.conversations[0])
    notes = read_notes(path)
    try:
        return dict(json.loads(notes["made"]))
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path.name}: the features of the run do not say which encoder made them; name it by "
            "--encoder (ProAssist's own are of google/siglip-so400m-patch14-384)."
        ) from error
