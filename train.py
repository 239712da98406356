"""Train an assistant, then let it answer streams: ``python train.py +experiment=per_turn``."""

from __future__ import annotations

from pathlib import Path

from proassist_lit.cli import run_app
from proassist_lit.lit.run import train

if __name__ == "__main__":
    run_app(train, conf_dir=Path(__file__).parent / "conf")
