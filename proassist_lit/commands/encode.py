"""``proassist-lit encode``: from videos to feature files."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proassist_lit.commands.terminal import check_tokens, count, ready_folder
from proassist_lit.errors import ConfigError
from proassist_lit.processors import num_processors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proassist_lit.encoding.jobs import Job
    from proassist_lit.vision.encoder import FrameEncoder


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of the program."""
    parser = commands.add_parser(
        "encode",
        help="encode videos into feature files",
        description="Encode videos into one feature file each, for training and evaluation. Run "
        "again, it goes on where it was. Exit code 0: all are encoded, 1: some could not be (they "
        "are listed at the end), 2: something given is wrong.",
    )
    parser.add_argument(
        "videos", nargs="+", type=Path, metavar="VIDEO", help="video files, or folders of them"
    )
    parser.add_argument(
        "--encoder",
        required=True,
        metavar="NAME",
        help="thumbnail16, efficientnet-lite0, dinov2-small, or a vision model of Hugging Face: "
        "its hub id (google/siglip-so400m-patch14-384) or folder",
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder for the feature files"
    )
    parser.add_argument(
        "--fps", type=float, default=2.0, metavar="N", help="frames per second (default: 2)"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--tokens",
        type=int,
        metavar="K",
        help="grids that make so many tokens a frame: 1, 5, 10 or 26 (default: 5)",
    )
    which.add_argument(
        "--grids", metavar="NAMES", help="grids by name, any of cls,2x2,3x3,5x5, for several uses"
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda, ... (default: a GPU if any)"
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", "float16", "bfloat16", "float32"),
        default="auto",
        help="what the encoder computes in (default: float16 on a GPU, float32 on a CPU); features "
        "are stored as float16",
    )
    parser.add_argument(
        "--batch",
        type=count,
        default=32,
        metavar="N",
        help="frames sent to the encoder at a time, in units of 8 (default: 32); changes the "
        "memory needed, not the features",
    )
    parser.add_argument(
        "--workers",
        type=count,
        default=max(1, num_processors() // 2),
        metavar="N",
        help="threads that decode (default: half of the processors)",
    )
    parser.add_argument(
        "--layer",
        type=int,
        default=-1,
        metavar="N",
        help="layer that grids are pooled from (default: -1, the last one, as ProAssist's are)",
    )
    parser.add_argument(
        "--preprocessing",
        choices=("stretch", "crop", "processor"),
        default="stretch",
        help="how pictures are made to fit: the whole picture, stretched; the middle of it, as of "
        "ProAssist's features; or as the model's own image processor does it (default: stretch)",
    )
    parser.add_argument(
        "--shard",
        default="auto",
        metavar="I/N",
        help="encode only part I of N, from 0/N; none for all (default: what torchrun, srun or "
        "a Slurm array says)",
    )
    parser.add_argument(
        "--format",
        choices=("safetensors", "arrow"),
        default="safetensors",
        help="of the files: ours, or ProAssist's (default: safetensors)",
    )
    parser.add_argument(
        "--decoder",
        choices=("pyav", "torchcodec"),
        default="pyav",
        help="what decodes the videos: PyAV on the CPU, or TorchCodec (pip install torchcodec) on "
        "the device of the encoder; the frames are the same, their colours not to the last digit "
        "(default: pyav)",
    )
    parser.add_argument(
        "--keep-damaged",
        action="store_true",
        help="keep what could be decoded of damaged videos instead of giving them up",
    )
    parser.set_defaults(run_command=encode_videos)


def encode_videos(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from proassist_lit.encoding.encode import encode_videos
    from proassist_lit.encoding.jobs import choose_shard, find_jobs
    from proassist_lit.encoding.manifest import Settings, claim_folder, is_done
    from proassist_lit.encoding.progress import EncodingProgress, list_failures
    from proassist_lit.vision.decoders import choose_decoder

    grids = _grids(arguments)
    if not arguments.fps > 0:
        raise ConfigError(f"--fps must be above 0, got {arguments.fps}; 2 is usual.")
    jobs = find_jobs(arguments.videos, arguments.out, f".{arguments.format}")
    shard = choose_shard(arguments.shard)
    ours = shard.of(jobs)
    if shard.count > 1:
        sys.stdout.write(
            f"part {shard.index} of {shard.count}, from 0 ({shard.origin}): {len(ours)} of "
            f"{len(jobs)} videos\n"
        )
    encoder = _load(arguments)
    choose_decoder(arguments.decoder, encoder.device)  # is it there? before the folder is claimed
    settings = Settings.of(
        encoder,
        grids=grids,
        fps=arguments.fps,
        file_format=arguments.format,
        decoder=arguments.decoder,
    )
    ready_folder("--out", arguments.out)
    claim_folder(arguments.out, settings)
    todo = [job for job in ours if not is_done(job, settings)]
    with EncodingProgress(_expected(todo, arguments.fps), len(todo)) as progress:
        outcome = encode_videos(
            todo,
            encoder,
            settings,
            progress,
            batch=arguments.batch,
            num_workers=arguments.workers,
            keep_damaged=arguments.keep_damaged,
        )
    num_before = len(ours) - len(todo) + outcome.num_before
    before = f"; {num_before} were done before" if num_before else ""
    sys.stdout.write(
        f"encoded {outcome.num_videos} videos, {outcome.num_frames} frames, into "
        f"{arguments.out}{before}\n"
    )
    if outcome.failures:
        sys.stderr.write(f"{len(outcome.failures)} of {len(ours)} videos were not encoded:\n")
        sys.stderr.write(list_failures(outcome.failures.values()))
    return 1 if outcome.failures else 0


def _grids(arguments: argparse.Namespace) -> tuple[str, ...]:
    from proassist_lit.vision.encoder import GRID_SIDES, GRIDS

    if arguments.grids is None:
        tokens = 5 if arguments.tokens is None else arguments.tokens
        check_tokens(tokens)
        return GRIDS[tokens]
    names = tuple(dict.fromkeys(arguments.grids.split(",")))
    unknown = [name for name in names if name not in GRID_SIDES]
    if unknown:
        raise ConfigError(
            f"--grids {arguments.grids}: {unknown[0]!r} is no grid; name some of "
            f"{','.join(GRID_SIDES)}, with commas between them."
        )
    return names


def _load(arguments: argparse.Namespace) -> FrameEncoder:
    import torch

    from proassist_lit.vision.encoders import choose_device, load_encoder
    from proassist_lit.vision.network import NetworkOptions

    device = choose_device(arguments.device)
    local_rank = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID", "")
    if arguments.device == "auto" and device.type == "cuda" and local_rank.isdecimal():
        device = torch.device("cuda", int(local_rank) % torch.cuda.device_count())
    if not arguments.encoder.startswith("thumbnail"):
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()  # that a text side is left out is as it should be
    return load_encoder(
        arguments.encoder,
        NetworkOptions(
            device=device,
            dtype=None if arguments.dtype == "auto" else getattr(torch, arguments.dtype),
            layer=arguments.layer,
            preprocessing=arguments.preprocessing,
        ),
    )


def _expected(jobs: Sequence[Job], fps: float) -> dict[Job, int]:
    """Frames of each video, as its header says; those whose header says nothing are left out.

    Without a terminal nobody sees how many are left, and no video is opened for it.
    """
    from rich.console import Console

    from proassist_lit.vision.video_file import VideoFile

    expected: dict[Job, int] = {}
    if not Console(stderr=True).is_terminal:
        return expected
    for job in jobs:
        try:
            with VideoFile(job.video) as video:
                expected[job] = round((video.duration_s or 0.0) * fps)
        except Exception:
            continue  # told when its turn comes; no video, however odd, may stop the others
    return expected
