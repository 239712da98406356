"""Leaves the terminal to the run: no tips, no list of absent devices, no bars of loaders."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Silence what the libraries say of themselves."""
    import transformers

    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.trainer.connectors.checkpoint_connector",  # at every checkpoint
        "sentence_transformers",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning's own use of something that torch has put aside
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
    # It asks the loader for a state; ours lies in the datamodule (``ConversationDataModule``).
    warnings.filterwarnings("ignore", message=r".*your dataloader is not resumable")
    transformers.utils.logging.disable_progress_bar()
