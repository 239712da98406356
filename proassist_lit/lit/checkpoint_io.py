"""Writes checkpoints beside those that they replace, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from proassist_lit.atomic import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, but never by way of another file system.

    Lightning writes into the folder of temporary files and moves what it wrote. Where that folder
    is on another disk the move is a copy over the checkpoint that was there, and where it is small
    nothing can be saved at all.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write ``checkpoint`` to ``path``; after an error or a kill the file is as it was."""
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)
