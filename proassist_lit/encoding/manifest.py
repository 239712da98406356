"""The manifest of a folder of features: how they were made, so that no others come among them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from proassist_lit import __version__
from proassist_lit.atomic import write_text
from proassist_lit.data.feature_content import FORMATS, read_notes
from proassist_lit.encoding.jobs import Job
from proassist_lit.errors import ConfigError, FeatureError
from proassist_lit.fingerprint import fingerprint
from proassist_lit.vision.decoders import DECODERS
from proassist_lit.vision.encoder import FrameEncoder

MANIFEST = "manifest.json"

_UNSAID = {"decoder": DECODERS[0]}
"""Goes without saying: files that were written before there was a choice stay as they are."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything beside the videos that decides the features of a folder.

    Attributes:
        encoder: its name.
        revision: which weights.
        width: E.
        grids: in the order of their names on the command line.
        layer: layer that the grids are pooled from.
        preprocessing: how pictures were made its input.
        dtype: precision that it computed in; stored is always float16.
        fps: frames per second.
        format: of the files.
        decoder: what decoded the videos; their colours differ in the last digits.
    """

    encoder: str
    revision: str
    width: int
    grids: tuple[str, ...]
    layer: int
    preprocessing: str
    dtype: str
    fps: float
    format: str
    decoder: str = DECODERS[0]

    @classmethod
    def of(
        cls,
        encoder: FrameEncoder,
        *,
        grids: tuple[str, ...],
        fps: float,
        file_format: str,
        decoder: str = DECODERS[0],
    ) -> Settings:
        """The settings of an encoder, run like this."""
        return cls(
            encoder=encoder.name, revision=encoder.revision, width=encoder.width, grids=grids,
            layer=encoder.layer, preprocessing=encoder.preprocessing,
            dtype=str(encoder.dtype).removeprefix("torch."), fps=fps, format=file_format,
            decoder=decoder,
        )  # fmt: skip

    def plain(self) -> dict[str, Any]:
        """As JSON holds it; the usual decoder goes without saying."""
        plain = {**asdict(self), "grids": list(self.grids)}
        return {key: value for key, value in plain.items() if _UNSAID.get(key) != value}

    def differing(self, found: Mapping[str, Any]) -> list[str]:
        """Which of these settings are others in what was ``found``, with both values.

        Raises:
            KeyError: one of them is not there.
        """
        got, wanted = _UNSAID | dict(found), _UNSAID | self.plain()
        return [
            f"{key} {got[key]}, now {value}" for key, value in wanted.items() if got[key] != value
        ]


def claim_folder(out: Path, settings: Settings) -> None:
    """Write the manifest of a folder without features; of one that has some, see that it agrees.

    Raises:
        ConfigError: other settings were used in this folder, or its manifest cannot be read.
    """
    path = out / MANIFEST
    if not path.exists():
        _write(path, settings)
    try:
        differing = settings.differing(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: is no manifest of features ({error!r}); choose another --out, or remove it "
            "with the features beside it."
        ) from error
    if differing and not any(file.suffix[1:] in FORMATS for file in out.rglob("*")):
        _write(path, settings)  # whoever claimed it encoded nothing
    elif differing:
        raise ConfigError(
            f"{path}: the features in this folder were made differently: "
            + "; ".join(differing)
            + ". Choose another --out, or run as before; to make all anew, remove the folder."
        )


def _write(path: Path, settings: Settings) -> None:
    plain = {**settings.plain(), "package": __version__}
    write_text(path, json.dumps(plain, indent=2) + "\n")


def notes_for(
    job: Job, settings: Settings, *, num_frames: int, device: str, damaged: bool
) -> dict[str, str]:
    """What the feature file of a video says of itself."""
    made = {
        **settings.plain(),
        "device": device,
        "video": job.video.name,
        "video_fingerprint": fingerprint([job.video]),
        "num_frames": num_frames,
        "damaged": damaged,
        "package": __version__,
    }
    return {
        "fps": str(settings.fps),
        "encoder": settings.encoder,
        "rendered": "false",
        "made": json.dumps(made, sort_keys=True),
    }


def is_done(job: Job, settings: Settings) -> bool:
    """Whether a video's features are there, by these settings, of the video as it is now."""
    if not job.target.exists():
        return False
    try:
        made: Mapping[str, Any] = json.loads(read_notes(job.target)["made"])
        same_video = made["video_fingerprint"] == fingerprint([job.video])
        return same_video and not settings.differing(made)
    except (FeatureError, OSError, ValueError, KeyError):
        return False  # damaged, of someone else, or the video is gone: encoding it will tell
