"""Leaves the terminal to the run: no tips, no list of absent devices, no bars of loaders."""

from __future__ import annotations

import logging
import warnings

_NEEDLESS = (
    # Lightning's own use of something that torch has put aside
    r".*isinstance\(treespec, LeafSpec\)",
    # It asks the loader for a state; ours lies in the datamodule (``ConversationDataModule``).
    r".*your dataloader is not resumable",
    # ``train/mfu`` tells what data costs (docs/many-gpus.md), and the setting is data.num_workers.
    r"The '\w+' does not have many workers",
    # A search for the batch size has no batches of val.
    r"Total length of `list` across ranks is zero",
    # A run that goes on; one that would not is refused before.
    r"Checkpoint directory .* exists and is not empty",
    # Of several processes: what is logged was added over them before.
    r"It is recommended to use `self\.log\(.*sync_dist=True",
    # torch renames it, in versions that not all of ours have
    r"`broadcast_buffers` is deprecated",
    # Nothing is changed in place of what the model returns.
    r"FSDP2-wrapped module .* returned a view tensor",
)
"""How warnings begin that say nothing to a user."""


def quiet_libraries() -> None:
    """Silence what the libraries say of themselves."""
    import transformers

    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.accelerators.cuda",  # which GPUs there are, at every fit
        "lightning.pytorch.trainer.connectors.checkpoint_connector",  # at every checkpoint
        "sentence_transformers",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _NEEDLESS:
        warnings.filterwarnings("ignore", message=message)
    transformers.utils.logging.disable_progress_bar()
