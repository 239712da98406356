"""A small generated data set."""

from __future__ import annotations

from pathlib import Path

from proassist_lit.data.config import DataConfig
from proassist_lit.data.sources.toy import ToyConfig


def data_config(cache: Path, **changes) -> DataConfig:
    arguments = {
        "cache": str(cache),
        "encoder": "thumbnail4",
        "num_tokens_per_img": 5,
        "toy": ToyConfig(num_train=2, num_val=2, num_test=2),
    } | changes
    return DataConfig(**arguments)
