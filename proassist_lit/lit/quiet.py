"""Leaves the terminal to the run: no tips, no list of absent devices, no bars of loaders."""

from __future__ import annotations

import logging


def quiet_libraries() -> None:
    """Silence what the libraries say of themselves."""
    import transformers

    for name in ("lightning.pytorch.utilities.rank_zero", "sentence_transformers"):
        logging.getLogger(name).setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
