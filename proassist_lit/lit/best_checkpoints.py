"""The states with the lowest loss on val."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from proassist_lit.run_directory import RunDirectory


class BestCheckpoints(ModelCheckpoint):
    """As many as are wanted, in ``checkpoints`` of the run, also where that was moved.

    Lightning forgets them where the folder has another path than before: the next validation would
    write over ``best.ckpt``, however bad it is.

    Args:
        run: where they lie.
        name: of a file, without suffix.
        most: how many are kept.
    """

    def __init__(self, run: RunDirectory, name: str, most: int) -> None:
        super().__init__(
            dirpath=run.checkpoints, filename=name, monitor="val/loss", mode="min",
            save_top_k=most, enable_version_counter=False, auto_insert_metric_name=False,
        )  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the files that were the best, if they lie here."""
        super().load_state_dict(_moved(state_dict, Path(str(self.dirpath))))


class BestCheckpoint(BestCheckpoints):
    """``best.ckpt``, the best alone.

    Args:
        run: where it lies.
    """

    def __init__(self, run: RunDirectory) -> None:
        super().__init__(run, run.best_checkpoint.stem, 1)

    @property
    def state_key(self) -> str:
        """That of Lightning's class, by which earlier checkpoints know it."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)


class TopCheckpoints(BestCheckpoints):
    """Others beside it; Lightning tells the states of callbacks by their class."""


def _moved(state: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """``state`` of files in ``folder``, if all that it names lie there now."""

    def here(path: str) -> str:
        return str(folder / Path(path).name) if path else path

    best = {here(path): score for path, score in state["best_k_models"].items()}
    if not best or not all(Path(path).exists() for path in best):
        return dict(state)
    names = ("best_model_path", "kth_best_model_path", "last_model_path")
    return {
        **state, "dirpath": str(folder), "best_k_models": best,
        **{name: here(state[name]) for name in names},
    }  # fmt: skip
