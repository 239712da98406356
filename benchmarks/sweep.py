"""Nine thresholds in one pass, against one threshold alone.

Three ways to stream: with the reference as context, decisions only; the same with words; and
freely. The first two feed the same context to all rows. When rows run freely their contexts part
with their decisions, so that more is to be fed: ``tokens`` is how much, as a multiple of one row
(tokens that differ between rows, over those of the middle row alone). Rows of one pass are checked
against that row alone.

    python -m benchmarks.sweep --shape smollm2 --streams 16 --frames 150
    python -m benchmarks.sweep --quick
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.shapes import (
    MARK,
    add_arguments,
    build,
    features,
    machine,
    recordings,
    stream,
    stream_config,
    synchronize,
)
from proassist_lit.sequence.chat import Role
from proassist_lit.streaming.config import ContextSource, StreamConfig
from proassist_lit.streaming.engine import Engine
from proassist_lit.streaming.policy import Thresholds
from proassist_lit.types import FrameOutput

SHARES = (0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.10)
"""Of frames spoken at, with the reference as context, for each threshold."""

WAYS = {
    "decisions": {"context": ContextSource.REFERENCE, "words": False},
    "words": {"context": ContextSource.REFERENCE, "words": True},
    "free": {"context": ContextSource.OWN, "words": True},
}

Rows = list[list[list[FrameOutput]]]  # by row, by stream, by frame


def graded_features(number: int, num_frames: int, num_tokens_per_img: int) -> Tensor:
    """(F, K, E) features whose mark is anything between plain and marked."""
    out = features(number, num_frames, num_tokens_per_img)
    generator = torch.Generator().manual_seed(10_000 + number)
    out[:, -1, 0] = MARK * (2 * torch.rand(num_frames, generator=generator) - 1)
    return out


def num_distinct(rows: Rows, num_tokens_per_img: int, num_around: int) -> int:
    """Tokens of all rows, those that several rows have in common once.

    Args:
        rows: answers.
        num_tokens_per_img: K.
        num_around: tokens before and after the words of an utterance.
    """
    total = 0
    for streams in zip(*rows, strict=True):
        seen: set[tuple[object, ...]] = set()
        for frames in streams:
            history: tuple[object, ...] = ()
            for frame in frames:
                image = (*history, "image")
                said = (*history, frame.text if frame.speak else None)
                if image not in seen:
                    total += num_tokens_per_img
                if frame.speak and said not in seen:
                    total += len(frame.text.split()) + num_around
                seen |= {image, said}
                history = (hash(said),)  # all that came before, in short
    return total


@torch.inference_mode()
def measure(options: argparse.Namespace) -> dict[str, object]:
    """One threshold and nine, in each way."""
    device = torch.device(options.device)
    model, chat = build(options.shape, device=device, dtype=getattr(torch, options.dtype))
    k, num_frames = options.tokens, options.frames
    config = stream_config(options, int(0.2 * num_frames + 10))
    generator = torch.Generator().manual_seed(1)
    spoken = torch.rand(options.streams, num_frames, generator=generator) < options.speak
    streams = [
        stream(i, num_frames, row.nonzero().flatten().tolist(), options.words)
        for i, row in enumerate(spoken)
    ]
    inputs = [graded_features(i, num_frames, k) for i in range(options.streams)]

    def run(config: StreamConfig, thresholds: Sequence[Thresholds]) -> tuple[Rows, float]:
        engine = Engine(model, chat, config, num_tokens_per_img=k, thresholds=thresholds)
        start = time.perf_counter()
        answered = list(engine.run(recordings(streams, inputs)))
        synchronize(device)
        seconds = time.perf_counter() - start
        rows: Rows = [[[] for _ in streams] for _ in thresholds]
        for one in answered:
            if one.error is not None:
                raise one.error
            rows[one.row][one.index] = list(one.frames)
        return rows, seconds

    first = replace(config, **WAYS["decisions"])
    [seen], _ = run(first, [Thresholds(speak=1.0, dst=1.0)])
    probs = torch.tensor([frame.speak_prob for frames in seen for frame in frames])
    thresholds = [Thresholds(speak=float(probs.quantile(1 - share)), dst=1.0) for share in SHARES]
    middle = len(thresholds) // 2
    ways: dict[str, dict[str, float]] = {}
    for name, settings in WAYS.items():
        way = replace(config, **settings)
        [alone], one_s = run(way, thresholds[middle : middle + 1])
        rows, all_s = run(way, thresholds)
        same = [
            (a.speak, a.text) == (b.speak, b.text)
            for x, y in zip(alone, rows[middle], strict=True)
            for a, b in zip(x, y, strict=True)
        ]
        ways[name] = {
            "one_s": round(one_s, 2),
            "all_s": round(all_s, 2),
            "times_one": round(all_s / one_s, 2),
            "equal_answers": sum(same) / len(same),
            "spoken_share": round(
                sum(f.speak for row in rows for frames in row for f in frames)
                / (len(same) * len(rows)),
                4,
            ),
        }
        if name == "free":
            opening, closing = chat.opening_ids(Role.ASSISTANT), chat.after_turn_ids
            around = len(opening) + 1 + len(closing)
            tokens = num_distinct(rows, k, around) / num_distinct([alone], k, around)
            ways[name]["tokens"] = round(tokens, 2)
            ways[name]["times_tokens"] = round(all_s / one_s / tokens, 2)
    free = ways["free"]
    return {
        "benchmark": "sweep",
        "ratio": round(len(thresholds) / free["times_one"], 2),
        "baseline": {"seconds": round(len(thresholds) * free["one_s"], 2)},
        "ours": ways,
        "thresholds": len(thresholds),
        "settings": {
            name: getattr(options, name)
            for name in ("shape", "dtype", "streams", "frames", "speak", "words", "tokens")
        },
        "machine": machine(device),
    }


def main() -> None:
    """Measure as asked and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add_arguments(parser)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--speak", type=float, default=0.06, help="share of the reference's")
    options = parser.parse_args()
    if options.quick:
        options.shape, options.streams, options.frames = "tiny", 8, 80
    print(json.dumps(measure(options)))


if __name__ == "__main__":
    main()
