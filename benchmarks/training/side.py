"""One side of the comparison, trained and measured in this process."""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from itertools import pairwise
from typing import Any

import torch
import transformers

from benchmarks.shapes import build, machine, synchronize
from benchmarks.training.baseline import train_baseline
from benchmarks.training.conversations import examples
from benchmarks.training.memory import Memory
from benchmarks.training.ours import train_ours
from proassist_lit.model.arithmetic import StepArithmetic
from proassist_lit.model.config import LoraConfig
from proassist_lit.model.lora import add_lora
from proassist_lit.run_notes import installed_version
from proassist_lit.types import IGNORE_INDEX


def run_side(options: argparse.Namespace) -> dict[str, Any]:
    """Train one side in this process; the first steps warm up and are not timed."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    device = torch.device(options.device)
    model, chat = build(options.shape, device=device, dtype=getattr(torch, options.dtype))
    model.requires_grad_(True)
    model.lm.requires_grad_(not options.frozen)
    if options.lora:
        add_lora(model.lm, LoraConfig(rank=options.lora, alpha=2 * options.lora, dropout=0.0))
    model.train()
    rows = examples(chat, options)
    ends: list[tuple[float, float]] = []

    def over() -> None:
        synchronize(device)
        ends.append((time.perf_counter(), time.process_time()))

    arithmetic = StepArithmetic.of(model)
    memory = Memory(device)
    train = train_baseline if options.side == "baseline" else train_ours
    losses = train(model, rows, options, over)
    lengths = [len(row.input_ids) for row in rows]
    timed = rows[options.warmup * options.batch :]
    return {
        "losses": losses,
        "seconds": ends[-1][0] - ends[options.warmup - 1][0],
        "seconds_of_steps": [
            round(end[0] - before[0], 3)
            for before, end in pairwise(ends[options.warmup - 1 :])
        ],
        # Tells more where others use the machine as well.
        "cpu_seconds": ends[-1][1] - ends[options.warmup - 1][1],
        "tokens": sum(len(row.input_ids) for row in timed),
        "flops": sum(
            arithmetic.of_batch([len(r.input_ids)], int((r.labels != IGNORE_INDEX).sum()))
            for r in timed
        ),
        "peak_bytes": memory.peak if device.type == "cuda" else memory.growth(),
        "model_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "padding_share": 1 - sum(lengths) / sum(
            options.batch * max(lengths[i : i + options.batch])
            for i in range(0, len(lengths), options.batch)
        ),
        "labelled_share": sum(int((r.labels != IGNORE_INDEX).sum()) for r in rows) / sum(lengths),
        "machine": machine(device)
        | {"transformers": transformers.__version__, "liger": installed_version("liger-kernel")},
    }  # fmt: skip
