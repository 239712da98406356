"""The user's cache folder: what is made once for this machine and can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``PROASSIST_LIT_CACHE``, else ``~/.cache/proassist_lit``. It need not exist."""
    return Path(os.environ.get("PROASSIST_LIT_CACHE", "~/.cache/proassist_lit")).expanduser()
