"""A run so small that all of it is built within a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proassist_lit.config import RunConfig
from proassist_lit.data.config import DataConfig
from proassist_lit.data.sources.toy import ToyConfig
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.model.config import ModelConfig, TinyConfig
from proassist_lit.streaming.config import Strategy, StreamConfig


def small_run(cache: Path, **changes: Any) -> RunConfig:
    toy = ToyConfig(num_train=1, num_val=1, num_test=1)
    settings = {
        "data": DataConfig(cache=str(cache), encoder="thumbnail4", toy=toy, packing=True),
        "model": ModelConfig(tiny=TinyConfig(hidden_size=16, num_layers=2, num_heads=2)),
        "stream": StreamConfig(max_new_tokens=2, max_dst_tokens=2, strategy=Strategy.DROP_MIDDLE),
        "evaluation": EvaluationConfig(similarity="words"),
    }
    return RunConfig(**settings | changes)
