"""Generates a data set on disk from timelines: conversations, drawn frames, features.

The folder is named after everything that decides its content, so that it is made once, and a
change of settings makes another. Work that was cut short goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich import get_console
from rich.progress import track

from proassist_lit.atomic import write_text
from proassist_lit.data.config import DataConfig
from proassist_lit.data.dialogue import write_dialogues
from proassist_lit.data.features import write_features
from proassist_lit.data.records import write_records
from proassist_lit.data.render import Renderer
from proassist_lit.data.sources.registry import find_source
from proassist_lit.data.sources.source import DrawnSource
from proassist_lit.data.timeline import Timeline, event_frame
from proassist_lit.errors import ConfigError
from proassist_lit.processors import num_processors
from proassist_lit.vision.encoders import build_encoder, grids_for

FORMAT_VERSION = 10
"""Raised whenever generated files of the same settings change."""


def generated_folder(config: DataConfig) -> Path:
    """Folder of the data set that ``config`` asks for."""
    source = _drawn(config)
    relevant: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "source": config.source,
        "seed": config.seed,
        "encoder": config.encoder,
        "grids": grids_for(config.num_tokens_per_img),
        "dialogue": asdict(config.dialogue),
        **source.settings(config),
    }
    text = json.dumps(relevant, sort_keys=True, default=str)
    digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    return source.folder(config) / f"{config.source}-{digest}"


def is_generated(config: DataConfig) -> bool:
    """Whether the data set of ``config`` is there already."""
    return _is_whole(generated_folder(config))


def generate(config: DataConfig) -> Path:
    """Make the data set of ``config`` if it is not there yet; return its folder.

    The folder holds ``<split>.jsonl``, ``timelines.jsonl``, one file per video in
    ``features/<encoder>`` and, written last, ``manifest.json``.
    """
    folder = generated_folder(config)  # of annotations, which are read for its name
    if _is_whole(folder):
        return folder
    timelines = _drawn(config).timelines(config)
    folder.mkdir(parents=True, exist_ok=True)
    _draw_and_encode(config, folder, [t for split in timelines.values() for t in split])
    counts = {}
    for split, recordings in timelines.items():
        conversations = write_dialogues(
            recordings, config.dialogue, seed=config.seed, every_type=split == "train"
        )
        write_records(folder / f"{split}.jsonl", conversations)
        counts[split] = len(conversations)
    lines = [t.to_json() for split in timelines.values() for t in split]
    write_text(folder / "timelines.jsonl", "\n".join(lines) + "\n")
    manifest = {
        "source": config.source,
        "rendered": True,
        "encoder": config.encoder,
        "grids": list(grids_for(config.num_tokens_per_img)),
        "fps": config.dialogue.fps,
        "conversations": counts,
        "format_version": FORMAT_VERSION,
    }
    write_text(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    return folder


def _is_whole(folder: Path) -> bool:
    return (folder / "manifest.json").exists()


def read_timelines(folder: Path) -> dict[str, Timeline]:
    """Timelines of a generated data set, by video."""
    # Not by splitlines(): the texts of a line may hold other ends of lines than "\n".
    with (folder / "timelines.jsonl").open(encoding="utf-8", newline="\n") as lines:
        timelines = [Timeline.from_json(line) for line in lines]
    return {timeline.video_uid: timeline for timeline in timelines}


def _drawn(config: DataConfig) -> DrawnSource:
    source = find_source(config.source)
    if not isinstance(source, DrawnSource):
        raise ConfigError(f"data.source {config.source} is read in place, not generated.")
    return source


def _draw_and_encode(config: DataConfig, folder: Path, timelines: list[Timeline]) -> None:
    """Draw and encode every recording whose feature file is not there yet."""
    features = folder / "features" / config.encoder
    todo = [t for t in timelines if not (features / f"{t.video_uid}.safetensors").exists()]
    jobs = [(t, config.encoder, config.num_tokens_per_img, config.dialogue.fps, features)
            for t in todo]  # fmt: skip
    many = len(jobs) >= 8
    if many and not get_console().is_terminal:  # a line in place of the bar, which is not seen
        sys.stderr.write(f"drawing {len(jobs)} recordings into {folder}\n")
    num_processes = min(num_processors(), len(jobs) // 16)
    description = f"Drawing {len(jobs)} recordings"
    if num_processes < 2:
        for job in track(jobs, description, disable=not many):
            _draw_one(job)
        return
    # A forked child may inherit locks of torch's threads, held for ever: start afresh.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, mp_context=context) as pool:
        with _children_without_script():  # they start as jobs are handed over, here all at once
            drawn = pool.map(_draw_one, jobs, chunksize=4)
        for _ in track(drawn, description, total=len(jobs)):
            pass


@contextmanager
def _children_without_script() -> Iterator[None]:
    """Processes spawned within do not run the script of this one, which they need nothing of.

    They would otherwise, to its end where no ``if __name__ == "__main__":`` guards it: to here.
    """
    script = vars(sys.modules["__main__"])
    known: dict[str, Any] = {n: script[n] for n in ("__file__", "__spec__") if n in script}
    script.update(dict.fromkeys(known))
    try:
        yield
    finally:
        script.update(known)


def _draw_one(job: tuple[Timeline, str, int, float, Path]) -> None:
    timeline, encoder_name, num_tokens_per_img, fps, folder = job
    encoder = build_encoder(encoder_name)
    num_frames = event_frame(timeline.duration_s, fps) + 1
    frames = Renderer(timeline).frames(0, num_frames, fps)
    grids = encoder.encode(frames, grids_for(num_tokens_per_img))
    write_features(
        folder / f"{timeline.video_uid}.safetensors",
        {name: torch.from_numpy(cells) for name, cells in grids.items()},
        fps=fps,
        encoder=encoder_name,
        rendered=True,
    )
