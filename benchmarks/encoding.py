"""Videos to features: is the encoder kept busy, or does it wait for frames?

Three things are timed on the same made videos, in turns: the encoder alone, on frames that are
prepared already; decoding and preparing alone, by one worker; and ``encode_videos``, which does
both at the same time and writes the files. Decoding is hidden if the last is as fast as the first:
``ratio`` is its share, the median of the rounds. ``encoder_busy`` is the share of its time that
``encode_videos`` spends in the encoder; what is left is waiting for frames, and writing. (On a
GPU, which works on while others wait, it says nothing and is left out.) The encoder is a network of
DINOv2-small's shape with random weights.

On a CPU the encoder and the decoder want the same cores, so the encoder gets all but one of them,
in every measurement. ``cpu_share`` is the processor time over the wall time of all cores.

    python -m benchmarks.encoding
    python -m benchmarks.encoding --device cuda --workers 12 --videos 24
    python -m benchmarks.encoding --quick
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import av
import numpy as np
import torch
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from benchmarks.shapes import machine, synchronize
from proassist_lit.encoding.decoding import Decoders, Unit
from proassist_lit.encoding.encode import encode_videos
from proassist_lit.encoding.jobs import Job
from proassist_lit.encoding.manifest import Settings
from proassist_lit.errors import ProAssistError
from proassist_lit.vision.encoder import UNIT
from proassist_lit.vision.hugging_face import TransformerEncoder
from proassist_lit.vision.network import NetworkOptions
from proassist_lit.vision.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Stretch

GRIDS = ("cls", "2x2")
RATE = 25
"""Pictures a second of the videos."""


class Unwatched:
    """Nobody wants to know."""

    def frames(self, job: Job, num_frames: int) -> None:
        """Do nothing."""

    def video(self, job: Job, num_frames: int, error: ProAssistError | None) -> None:
        """Refuse to measure faults."""
        assert error is None, error


def make_video(path: Path, seconds: int, size: Sequence[int]) -> None:
    """A picture of smooth noise that moves, as x264 codes it by default."""
    width, height = size
    coarse = np.random.default_rng(0).integers(0, 256, (9, 16, 3)).astype(np.uint8)
    picture = np.kron(coarse, np.ones((-(-height // 9), -(-width // 16), 1), np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(seconds * RATE):
            moved = np.roll(picture, (i, 3 * i), axis=(0, 1))[:height, :width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(moved), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def make_encoder(arguments: argparse.Namespace, device: torch.device) -> TransformerEncoder:
    """A random network of DINOv2-small's shape; with ``--quick`` a smaller one."""
    torch.manual_seed(0)
    hidden, layers = (64, 2) if arguments.quick else (384, 12)
    side = 56 if arguments.quick else 224
    config = Dinov2Config(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 64,
        image_size=side, patch_size=14,
    )  # fmt: skip
    return TransformerEncoder(
        Dinov2Model(config), Stretch((side, side), IMAGENET_MEAN, IMAGENET_STD),
        NetworkOptions(device=device), name="random", revision="0",
    )  # fmt: skip


def timed(device: torch.device, work: Callable[[], int]) -> dict[str, float]:
    """Frames per second of ``work``, which gives how many it did, and its share of all cores."""
    synchronize(device)
    wall, processor = perf_counter(), process_time()
    num_frames = work()
    synchronize(device)
    wall, processor = perf_counter() - wall, process_time() - processor
    return {
        "frames_per_s": num_frames / wall,
        "cpu_share": processor / wall / (os.cpu_count() or 1),
        "wall_s": wall,
    }


class Bench:
    """What is measured.

    Args:
        arguments: the command line.
        folder: for videos and features.
    """

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self._arguments, self.device = arguments, torch.device(arguments.device)
        self._encoder = make_encoder(arguments, self.device)
        self._folder = folder
        first = folder / "0.mp4"
        make_video(first, arguments.seconds, arguments.size)
        self._videos = [first, *(folder / f"{i}.mp4" for i in range(1, arguments.videos))]
        for video in self._videos[1:]:
            video.write_bytes(first.read_bytes())
        self._units: list[Tensor] = []
        self.num_frames = self.decode()
        self._encoder.encode_prepared(self._units[0], GRIDS)  # the first time is slower

    def decode(self) -> int:
        """Decode and prepare all videos by one worker; give the number of their frames."""
        num_frames = 0
        with Decoders(
            self._jobs(0), self._encoder, fps=self._arguments.fps, num_workers=1, ahead=4
        ) as decoders:
            for item in (item for items in decoders.batches(1) for item in items):
                if isinstance(item, Unit):
                    num_frames += item.num_frames
                    self._units = [*self._units[:7], item.prepared]
        return num_frames

    def encode(self) -> int:
        """Encode as many units as the videos have, on prepared frames."""
        num_units = len(self._videos) * -(-self.num_frames // len(self._videos) // UNIT)
        for i in range(num_units):
            encoded = self._encoder.encode_prepared(self._units[i % len(self._units)], GRIDS)
        encoded["cls"].cpu()
        return self.num_frames

    def both(self, number: int) -> int:
        """Videos to files."""
        settings = Settings.of(
            self._encoder, grids=GRIDS, fps=self._arguments.fps, file_format="safetensors"
        )
        return encode_videos(
            self._jobs(number), self._encoder, settings, Unwatched(),
            batch=self._arguments.batch, num_workers=self._arguments.workers,
        ).num_frames  # fmt: skip

    def busy(self, number: int) -> float:
        """Share of its time that ``both`` spends in the encoder."""
        encode, spent = self._encoder.encode_prepared, list[float]()

        def noted(prepared: Tensor, grids: Sequence[str]) -> dict[str, Tensor]:
            start = perf_counter()
            try:
                return encode(prepared, grids)
            finally:
                spent.append(perf_counter() - start)

        self._encoder.encode_prepared = noted  # type: ignore[method-assign]
        wall_s = timed(self.device, lambda: self.both(number))["wall_s"]
        self._encoder.encode_prepared = encode  # type: ignore[method-assign]
        return sum(spent) / wall_s

    def _jobs(self, number: int) -> list[Job]:
        out = self._folder / f"features{number}"
        return [Job(video, out / f"{video.stem}.safetensors") for video in self._videos]


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Time the three in turns."""
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    rounds = list[dict[str, dict[str, float]]]()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments, Path(folder))
        for number in range(1, arguments.rounds + 1):
            rounds.append({
                "encoder_alone": timed(bench.device, bench.encode),
                "pipeline": timed(bench.device, partial(bench.both, number)),
                "decoding_alone": timed(bench.device, bench.decode),
            })  # fmt: skip
        busy = None if bench.device.type != "cpu" else round(bench.busy(0), 3)
    ratios = [r["pipeline"]["frames_per_s"] / r["encoder_alone"]["frames_per_s"] for r in rounds]
    middle = {
        name: {
            key: round(median(r[name][key] for r in rounds), 3)
            for key in ("frames_per_s", "cpu_share")
        }
        for name in rounds[0]
    }
    return {
        "benchmark": "encoding",
        "ratio": round(median(ratios), 3),
        "encoder_busy": busy,
        **middle,
        "settings": {**vars(arguments), "frames": bench.num_frames},
        "machine": machine(bench.device),
    }


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.encoding", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--videos", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8, help="of each video")
    parser.add_argument("--width", type=int, default=640, help="of each video, pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a small network, small videos")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.videos, arguments.seconds, arguments.width = 2, 4, 320
        arguments.rounds = 1
    arguments.size = [arguments.width, arguments.width * 9 // 16]
    return arguments


def main() -> None:
    """Measure as asked and print one JSON object."""
    print(json.dumps(measure(parse())))


if __name__ == "__main__":
    main()
