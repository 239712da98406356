"""Options of the benchmark of training, with what suits the device and the shape."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from benchmarks.shapes import add_arguments
from proassist_lit.model.training_layers import GradientCheckpointing

SIDES = ("baseline", "ours")
LEARNING_RATE, WEIGHT_DECAY, CLIP = 1e-4, 0.01, 1.0

ON_CPU: dict[str, Any] = {
    "dtype": "float32", "batch": 4, "steps": 3, "warmup": 1, "rounds": 2, "shortest": 256,
    "longest": 1024, "micro_tokens": 1024, "checkpointing": GradientCheckpointing.SELECTIVE,
    "baseline_checkpointing": GradientCheckpointing.NONE, "lora": 0, "workers": 0,
}  # fmt: skip
ON_GPU: dict[str, Any] = {
    "dtype": "bfloat16", "batch": 4, "steps": 10, "warmup": 3, "rounds": 1, "shortest": 512,
    "longest": 4096, "micro_tokens": 8192, "checkpointing": GradientCheckpointing.NONE,
    "baseline_checkpointing": GradientCheckpointing.NONE, "lora": 0, "workers": 2,
}  # fmt: skip
TOO_LARGE_TO_TRAIN_WHOLE: dict[str, Any] = {
    "8b": {"checkpointing": GradientCheckpointing.FULL, "lora": 128, "steps": 8, "warmup": 2,
           "baseline_checkpointing": GradientCheckpointing.FULL, "micro_tokens": 16384},
}  # fmt: skip
"""What stands for an option that is not given."""


def make_parser(description: str) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=description)
    add_arguments(parser)
    parser.set_defaults(tokens=5, dtype=None)
    flag = partial(parser.add_argument, action="store_true")
    integer = partial(parser.add_argument, type=int)
    integer("--batch", help="conversations per step")
    integer("--steps", help="of training")
    integer("--warmup", help="of them, that are not timed")
    integer("--rounds", help="processes of each side, in turn")
    integer("--shortest", help="tokens of a conversation")
    integer("--longest", help="tokens of a conversation")
    integer("--micro-tokens", help="of ours, that go through at a time")
    integer("--lora", help="rank of additions that are trained instead of the backbone; 0: none")
    integer("--workers", help="processes that get batches ready, on both sides")
    parser.add_argument("--speak", type=float, default=0.06, help="share of frames spoken at")
    parser.add_argument("--checkpointing", choices=list(GradientCheckpointing), help="of ours")
    parser.add_argument(
        "--baseline-checkpointing", help="Hugging Face knows no other",
        choices=[GradientCheckpointing.NONE, GradientCheckpointing.FULL],
    )  # fmt: skip
    flag("--compile", help="ours")
    flag("--no-fused", help="ours without Liger's kernels, where they are installed")
    flag("--padded", help="ours pads as well, to see what packing brings")
    flag("--frozen", help="the backbone is not trained, on either side")
    parser.add_argument("--side", choices=SIDES, help="this one only, in this process")
    return parser


def fill_in(options: argparse.Namespace) -> argparse.Namespace:
    """Set what was not given as suits the device and the shape."""
    if options.quick:
        options.shape, options.rounds = "tiny", 1
    usual = ON_CPU if options.device == "cpu" else ON_GPU
    for name, value in (usual | TOO_LARGE_TO_TRAIN_WHOLE.get(options.shape, {})).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if not 1 <= options.warmup < options.steps:
        raise SystemExit(
            f"benchmarks.training: --warmup is {options.warmup} of {options.steps} steps; leave "
            "at least one before and one after it."
        )
    return options


def uses_autocast(options: argparse.Namespace) -> bool:
    """Whether float32 is kept for what needs it: peft makes additions of float32."""
    return options.device != "cpu" and options.dtype == "bfloat16"
