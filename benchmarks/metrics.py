"""Matching and metrics of one long stream, against the reference's dense assignment.

The baseline writes the costs of all pairs of frames into one dense matrix, as ProAssist does, and
solves it by ``scipy``'s Hungarian method; it is measured where the matrix fits. Both find the same
total cost, which is checked. Ours is measured at each length, with all metrics on top.

`--similarity` says what compares the texts: hashed words, or MiniLM as runs do. An evaluation
embeds every text of a stream, and MiniLM remembers it: `all_metrics_s` has it in, `embedding_s` is
what of that it took; `matching_s`, and the two sides that are compared, come after it.

    python -m benchmarks.metrics
    python -m benchmarks.metrics --similarity minilm --frames 1000,3000,10000
    python -m benchmarks.metrics --quick
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchmarks.shapes import machine
from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.matching import MatchConfig, match_utterances
from proassist_lit.metrics.similarity import Similarity, build_similarity
from proassist_lit.metrics.summary import evaluate_transcripts
from proassist_lit.types import FrameOutput, Reference, StepState, Transcript, Transition, Update

SHARE = 0.15
"""Of frames at which the reference speaks, and of those at which the assistant does."""

WINDOW_FRAMES = (-4, 8)
"""Of the matching: two seconds late to four seconds early, at 2 fps."""


class Timed:
    """A similarity that has embedded nothing yet, and counts the seconds that it takes."""

    def __init__(self, name: str) -> None:
        self._similarity = build_similarity(name)
        self._similarity(["a text that is in no stream"])  # loads the model
        self.name = self._similarity.name
        self.seconds = 0.0

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(n, D) float32, one unit vector for each text."""
        start = time.perf_counter()
        vectors = self._similarity(texts)
        self.seconds += time.perf_counter() - start
        return vectors


def texts(num_frames: int, seed: int) -> tuple[list[str], list[str]]:
    """(F,) generated and (F,) reference utterances: like ones near each other, and strays."""
    rng = np.random.default_rng(seed)
    words = np.array(["cut", "wash", "peel", "fry", "pan", "knife", "bowl", "now", "next", "good"])
    gens, refs = [""] * num_frames, [""] * num_frames
    for frame in rng.choice(num_frames, round(SHARE * num_frames), replace=False):
        refs[frame] = " ".join(rng.choice(words, 5))
        near = min(max(int(frame + rng.integers(-5, 6)), 0), num_frames - 1)
        gens[near] = refs[frame] if rng.random() < 0.5 else " ".join(rng.choice(words, 5))
    return gens, refs


def dense_cost(gens: list[str], refs: list[str], similarity: Similarity) -> float:
    """Total cost of the best assignment by the whole matrix of frames."""
    config, (left, right) = MatchConfig(), WINDOW_FRAMES
    talking = [i for i, text in enumerate(gens) if text]
    unique = list(dict.fromkeys(text for text in (*gens, *refs) if text))
    vectors = similarity(unique).numpy()
    index = {text: i for i, text in enumerate(unique)}
    semantic = np.ones((len(talking), len(refs)))  # (G, F)
    heard = [j for j, text in enumerate(refs) if text]
    mine = vectors[[index[gens[i]] for i in talking]]
    theirs = vectors[[index[refs[j]] for j in heard]]
    semantic[:, heard] = 1 - np.clip(mine @ theirs.T, -1, 1)
    offsets = np.arange(len(refs)) - np.array(talking)[:, None]
    reach = max(abs(left), abs(right))
    far = config.distance_factor * (np.abs(offsets) / reach) ** config.distance_power
    costs = np.where((offsets >= left) & (offsets <= right), semantic + far, 1e6)
    rows, columns = linear_sum_assignment(costs)
    return float(costs[rows, columns].sum())


def transcript(gens: list[str], refs: list[str]) -> Transcript:
    """A stream that says so, with ten steps that start and end in turn."""
    steps = tuple((f"S{i}", f"step {i}") for i in range(1, 11))
    state = {step: StepState.NOT_STARTED for step, _ in steps}
    every = max(len(gens) // 20, 1)
    frames, references = [], []
    for i, (gen, ref) in enumerate(zip(gens, refs, strict=True)):
        updates: tuple[Update, ...] = ()
        if i % every == 0 and i // every < 20:
            step, starts = f"S{i // every // 2 + 1}", i // every % 2 == 0
            updates = (Update(step, Transition.START if starts else Transition.COMPLETE),)
            state = state | {step: StepState.IN_PROGRESS if starts else StepState.COMPLETED}
        frames.append(
            FrameOutput(
                frame_idx=i, time_s=i / 2, speak_prob=0.9 if gen else 0.1, dst_prob=0.1,
                speak=bool(gen), dst=bool(updates), text=gen, updates=updates, state=state,
            )
        )  # fmt: skip
        references.append(
            Reference(
                text=ref, updates=updates, state=state,
                speak_label=int(bool(ref)), dst_label=int(bool(updates)),
            )
        )  # fmt: skip
    return Transcript(
        stream_id="long", dataset="captaincook4d", fps=2, steps=steps,
        frames=tuple(frames), references=tuple(references),
    )  # fmt: skip


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Shortest of three goes, and what came out."""
    best, out = math.inf, None
    for _ in range(3):
        start = time.perf_counter()
        out = work()
        best = min(best, time.perf_counter() - start)
    return best, out


def evaluate(stream: Transcript, name: str) -> tuple[float, Timed, dict[str, float]]:
    """Seconds of the shortest of three evaluations, each from the first text on; and its scores."""
    goes = []
    for _ in range(3):
        similarity = Timed(name)
        matcher = Matcher(similarity)
        start = time.perf_counter()
        scores = evaluate_transcripts([stream], matcher)
        goes.append((time.perf_counter() - start, similarity, scores))
    return min(goes, key=lambda go: go[0])


def measure(lengths: list[int], dense_frames: int, name: str) -> dict[str, Any]:
    """Times at each length, and against the dense matrix at ``dense_frames``."""
    rows = []
    for num_frames in lengths:
        gens, refs = texts(num_frames, seed=num_frames)
        all_s, similarity, scores = evaluate(transcript(gens, refs), name)
        embedding_s = similarity.seconds
        match_s, _ = seconds(
            lambda gens=gens, refs=refs, similarity=similarity: match_utterances(
                gens, refs, window_frames=WINDOW_FRAMES, similarity=similarity
            )
        )
        rows.append(
            {
                "frames": num_frames,
                "utterances": sum(map(bool, refs)),
                "texts": len({text for text in (*gens, *refs) if text}),
                "matching_s": round(match_s, 4),
                "all_metrics_s": round(all_s, 4),
                "embedding_s": round(embedding_s, 4),
                "us_per_frame": round(1e6 * all_s / num_frames, 1),
                "utterance_f1": round(scores["utterance_f1"], 4),
            }
        )
    gens, refs = texts(dense_frames, seed=0)
    similarity = Timed(name)
    dense_s, cost = seconds(lambda: dense_cost(gens, refs, similarity))
    ours_s, match = seconds(
        lambda: match_utterances(gens, refs, window_frames=WINDOW_FRAMES, similarity=similarity)
    )
    return {
        "benchmark": "metrics",
        "ratio": round(dense_s / ours_s, 1),
        "baseline": {"frames": dense_frames, "matching_s": round(dense_s, 4)},
        "ours": {"frames": dense_frames, "matching_s": round(ours_s, 4)},
        "equal_costs": math.isclose(cost, match.total_cost, rel_tol=1e-5),
        "lengths": rows,
        "settings": {"similarity": similarity.name},
        "machine": machine(torch.device("cpu")),
    }


def main() -> None:
    """Measure as asked and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--frames", default="1000,3000,10000,30000,100000", help="lengths")
    parser.add_argument("--dense-frames", type=int, default=5000, help="length for the baseline")
    parser.add_argument("--similarity", choices=["words", "minilm"], default="words")
    parser.add_argument("--quick", action="store_true", help="some seconds")
    options = parser.parse_args()
    if options.quick:
        options.frames, options.dense_frames = "1000,10000", 1000
    lengths = [int(length) for length in options.frames.split(",")]
    print(json.dumps(measure(lengths, options.dense_frames, options.similarity)))


if __name__ == "__main__":
    main()
