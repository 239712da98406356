"""The encoder that a run's features were made with."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from proassist_lit.data.config import DataConfig
from proassist_lit.data.dataset import ConversationSet
from proassist_lit.data.feature_content import read_notes
from proassist_lit.data.sources.proassist import ENCODER
from proassist_lit.errors import ConfigError, FeatureError, ProAssistError
from proassist_lit.vision.encoder import FrameEncoder
from proassist_lit.vision.encoders import is_of_hugging_face, load_encoder
from proassist_lit.vision.network import NetworkOptions
from proassist_lit.vision.preprocessing import Crop

_NOT_SAID = (KeyError, AttributeError, TypeError, ValueError)
"""What is raised where notes of features lack something, or hold something else."""


def load_run_encoder(
    data: ConversationSet, device: torch.device, *, name: str | None = None
) -> FrameEncoder:
    """Load the encoder that made the features of ``data``.

    Drawn data names it in its configuration. Of prepared data, the feature files say by which
    encoder ``proassist-lit encode`` made them, and how it was run.

    Args:
        data: a split of the run's data.
        device: where it shall compute.
        name: take this encoder instead, run as the one that made the features was.

    Raises:
        ConfigError: nobody says which one it is, it cannot be loaded, or its weights are others.
    """
    if not data.config.is_prepared:
        return load_encoder(name or data.config.encoder, NetworkOptions(device=device))
    try:
        path = data.feature_path(data.conversations[0])
        made = read_how_made(data)
    except ProAssistError:
        if name is None:
            raise
        return load_for_untold(name, data.config, device)
    return load_encoder_that_made(made, device, where=str(path), name=name)


def load_for_untold(name: str, config: DataConfig, device: torch.device) -> FrameEncoder:
    """Load an encoder for features that are not here, or do not say how they were made.

    Args:
        name: of the encoder.
        config: of the data; ProAssist's own features are known by the name of their folder.
        device: where it shall compute.

    Raises:
        ConfigError: it cannot be loaded.
    """
    options = NetworkOptions(device=device)
    if config.encoder == ENCODER and is_of_hugging_face(name):
        options = replace(options, preprocessing=Crop.name)
    return load_encoder(name, options)


def load_encoder_that_made(
    made: Mapping[str, Any], device: torch.device, *, where: str, name: str | None = None
) -> FrameEncoder:
    """Load an encoder by what its features say of it.

    Args:
        made: as ``read_how_made`` gives it.
        device: where it shall compute.
        where: file that says so, for messages.
        name: take this encoder instead, run like that; one of other weights is warned of.

    Raises:
        FeatureError: something is not said.
        ConfigError: it cannot be loaded, or its weights are others.
    """
    if name is not None:
        return _load_named(name, made, device)
    try:
        options = _options(made["encoder"], made, device)
        # As the folder of its features is named: google___siglip-so400m-patch14-384@-2
        wanted = made["encoder"].partition("@")[0].replace("___", "/")
        revision = made["revision"]
    except _NOT_SAID as error:
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


def _load_named(name: str, made: Mapping[str, Any], device: torch.device) -> FrameEncoder:
    try:
        options = _options(name, made, device)
    except _NOT_SAID:
        options = NetworkOptions(device=device)
    encoder = load_encoder(name, options)
    revision = made.get("revision", encoder.revision)
    if encoder.revision != revision:
        warnings.warn(
            f"--encoder {name}: its weights are {encoder.revision}, but the features of the run "
            f"were made with {revision} ({made.get('encoder')}); what is watched may look strange "
            "to the assistant.",
            stacklevel=3,
        )
    return encoder


def _options(name: str, made: Mapping[str, Any], device: torch.device) -> NetworkOptions:
    """How the encoder ``name`` is to be run, so that it makes features as they were ``made``."""
    if name.startswith("thumbnail") or made["encoder"].startswith("thumbnail"):
        return NetworkOptions(device=device)
    return NetworkOptions(
        device=device,
        # Half precision is an accelerator's: elsewhere it is as slow as it is coarse.
        dtype=getattr(torch, made["dtype"]) if made["device"] == device.type else None,
        layer=int(made["layer"]),
        preprocessing=made["preprocessing"],
    )


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
