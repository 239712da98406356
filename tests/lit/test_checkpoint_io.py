"""Checkpoints are whole, wherever temporary files lie."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from proassist_lit.build import build_core
from proassist_lit.lit import batch_size_search, lr_search
from proassist_lit.lit.batch_size_search import with_found_batch_size
from proassist_lit.lit.build import build_datamodule
from proassist_lit.lit.checkpoint_io import AtomicCheckpointIO
from proassist_lit.lit.lr_search import with_found_lr
from proassist_lit.run_directory import RunDirectory
from tests.lit.resuming import VAL_EVERY, config, fit

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here


def full(*_: Any, **__: Any) -> Any:
    raise OSError("No space left on device")


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best, writer = tmp_path / "best.ckpt", AtomicCheckpointIO()
    writer.save_checkpoint({"weights": torch.ones(3)}, best)
    save = torch.save

    def broken(checkpoint: Any, file: Any) -> None:
        save(checkpoint, file)
        file.truncate(100)
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="No space"):
        writer.save_checkpoint({"weights": torch.zeros(3)}, best)
    assert torch.equal(torch.load(best, weights_only=True)["weights"], torch.ones(3))
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]


@pytest.mark.road
def test_a_run_needs_no_room_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    checkpoints = tmp_path / "run/checkpoints"
    checkpoints.mkdir(parents=True)
    left = [checkpoints / f".{name}.ckpt.4711.part" for name in ("best", "last")]
    for part in left:
        part.write_text("half")  # of a run that was killed

    monkeypatch.setattr(tempfile, "mkstemp", full)
    fit(config(tmp_path / "data", steps=VAL_EVERY), tmp_path / "run")
    assert sorted(path.name for path in checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.road
def test_searches_need_no_room_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path / "data")
    trainer = replace(settings.trainer, find_batch_size=2)
    core, run = build_core(settings), RunDirectory(tmp_path / "run")
    datamodule = build_datamodule(settings, core)
    monkeypatch.setattr(lr_search, "NUM_STEPS", 24)
    monkeypatch.setattr(batch_size_search, "check_has_limit", lambda _: None)
    monkeypatch.setattr(tempfile, "mkstemp", full)
    with_found_lr(settings, core, datamodule, run, resumes=False)
    with_found_batch_size(replace(settings, trainer=trainer), core, run, resumes=False)
    assert run.learning_rate.exists()
    assert run.batch_size.exists()
