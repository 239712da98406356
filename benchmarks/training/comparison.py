"""Both sides in turn, each in a process of its own, and what they come to."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.training.options import SIDES
from proassist_lit.model.arithmetic import peak_tflops

OFFLINE = {"HF_HUB_OFFLINE": "1", "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
"""Environment of both sides; batches of any length otherwise leave holes in a GPU's memory."""


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both sides, in turn, each time in a process of its own."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(options.rounds):
        for side in SIDES:
            command = [sys.executable, "-m", "benchmarks.training", *sys.argv[1:], "--side", side]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True, env=OFFLINE | os.environ
            )
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
    baseline, ours = (found[side][0] for side in SIDES)
    difference = abs(baseline["losses"][0] - ours["losses"][0])
    room = 1e-4 if options.dtype == "float32" else 5e-2
    if difference > room:
        raise SystemExit(
            f"benchmarks.training: the first losses are {baseline['losses'][0]} and "
            f"{ours['losses'][0]}; the two sides do not learn the same."
        )

    peak = peak_tflops(baseline["machine"]["device"], "bf16" if options.dtype == "bfloat16" else "")

    def summary(side: str) -> dict[str, Any]:
        runs = found[side]

        def rate(clock: str) -> float:
            return round(sum(r["tokens"] for r in runs) / sum(r[clock] for r in runs), 1)

        flops_per_s = sum(r["flops"] for r in runs) / sum(r["seconds"] for r in runs)
        return {
            "tokens_per_s": rate("seconds"),
            "mfu": round(flops_per_s / peak / 1e12, 4) if peak is not None else None,
            "tokens_per_cpu_s": rate("cpu_seconds"),
            "tokens_per_s_of_runs": [round(r["tokens"] / r["seconds"], 1) for r in runs],
            "seconds_of_steps": [r["seconds_of_steps"] for r in runs],
            "peak_gib": round(max(r["peak_bytes"] for r in runs) / 2**30, 3),
            "model_gib": round(runs[0]["model_bytes"] / 2**30, 3),
            "first_loss": runs[0]["losses"][0],
            "last_loss": runs[0]["losses"][-1],
        }  # fmt: skip

    theirs, mine = summary("baseline"), summary("ours")
    return {
        "benchmark": "training",
        "ratio": round(mine["tokens_per_s"] / theirs["tokens_per_s"], 2),
        "cpu_ratio": round(mine["tokens_per_cpu_s"] / theirs["tokens_per_cpu_s"], 2),
        "memory_ratio": round(mine["peak_gib"] / theirs["peak_gib"], 3),
        "baseline": theirs | {"padding_share": round(baseline["padding_share"], 3)},
        "ours": mine | {"padding_share": round(ours["padding_share"] * options.padded, 3)},
        "labelled_share": round(baseline["labelled_share"], 3),
        "settings": {
            name: getattr(options, name)
            for name in ("shape", "dtype", "batch", "steps", "warmup", "shortest", "longest",
                         "tokens", "speak", "words", "micro_tokens", "checkpointing",
                         "baseline_checkpointing", "compile", "no_fused",
                         "frozen", "lora", "workers", "rounds")
        },
        "peak_tflops": peak,
        "machine": baseline["machine"],
    }  # fmt: skip
