"""Six videos of tea being made, encoded, and the spreadsheets of their steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from proassist_lit.commands.main import main
from proassist_lit.data.conversation import Conversation
from proassist_lit.data.feature_content import write_content
from proassist_lit.data.records import read_records

FPS = 2.0
SIX = [f"v{i}" for i in range(6)]
Captured = pytest.CaptureFixture[str]


def encode(
    folder: Path, name: str, *, num_frames: int = 41, encoder: str = "eyes",
    grids: Sequence[str] = ("cls", "2x2"), suffix: str = "safetensors", fps: float = FPS,
    how: Mapping[str, object] | None = None,
) -> None:  # fmt: skip
    """Features as ``proassist-lit encode`` writes them."""
    cells = {"cls": torch.zeros(num_frames, 1, 4), "2x2": torch.zeros(num_frames, 4, 4)}
    made = {"num_frames": num_frames, "fps": fps, "grids": list(grids), **(how or {})}
    path = folder / "features" / encoder / f"{name}.{suffix}"
    write_content(path, cells, {"fps": str(fps), "made": json.dumps(made)})


def prepare(folder: Path, text: str, *options: str) -> int:
    sheet = folder.parent / "steps.csv"
    sheet.write_text(text)
    return main(["prepare", str(sheet), str(folder), *options])


def rows(*names: str) -> str:
    return "video,step,start,end\n" + "".join(
        f"{name}.mp4,Fill the kettle,2,6\n{name}.mp4,Warm the pot,,\n"
        f"{name}.mp4,Pour the tea into the cup,8.3,15\n"
        for name in names
    )


def records(folder: Path, split: str) -> list[Conversation]:
    return read_records(folder / f"prepared/{split}.jsonl")
