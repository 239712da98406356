"""What there is to encode: videos, where their features go, and which part of it is ours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from proassist_lit.data.feature_content import other_format_of
from proassist_lit.errors import ConfigError
from proassist_lit.rendezvous import tasks_of_step
from proassist_lit.vision.video_file import VIDEO_SUFFIXES


@dataclass(frozen=True)
class Job:
    """A video to encode.

    Attributes:
        video: the file.
        target: the feature file.
    """

    video: Path
    target: Path


@dataclass(frozen=True)
class Shard:
    """Which part of the work is ours.

    Attributes:
        index: from 0.
        count: parts in all.
        origin: who says so, in words.
    """

    index: int = 0
    count: int = 1
    origin: str = ""

    def of(self, jobs: Sequence[Job]) -> list[Job]:
        """Our part: every so many."""
        return list(jobs[self.index :: self.count])


def find_jobs(sources: Iterable[Path], out: Path, suffix: str) -> list[Job]:
    """The videos of ``sources``, by the names of their targets.

    A file in a folder keeps its place below it: ``videos/a/b.mp4`` of ``videos`` becomes
    ``out/a/b.safetensors``. A file that is named itself becomes ``out/b.safetensors``. Linked
    folders are searched, hidden ones and hidden files are not.

    Args:
        sources: video files, and folders that are searched for some.
        out: folder of the feature files.
        suffix: of the feature files, with its dot.

    Raises:
        ConfigError: there is no such path, a folder holds no video, two videos would share one
            feature file, or one has features of the other format there.
    """
    sources = list(sources)
    if absent := [source for source in sources if not source.exists()]:
        raise ConfigError(
            "\n".join(f"{path}: there is no such video or folder; check it." for path in absent)
        )
    targets = dict[Path, Path]()
    for source in sources:
        found = _below(source) if source.is_dir() else {PurePosixPath(source.name): source}
        for name, video in found.items():
            target = out.joinpath(*name.parts).with_suffix(suffix)
            other = targets.setdefault(target, video)
            if other.resolve() != video.resolve():
                raise ConfigError(
                    f"{other} and {video} would both become {target}; rename one of them, or give "
                    "the folder above both instead."
                )
    for target in targets:
        if beside := other_format_of(target):
            raise ConfigError(
                f"{beside}: {target.name} would lie beside it; of a video that has both, .arrow "
                "is read before .safetensors, however old. Choose another --out, or remove it "
                "and its like."
            )
    return [Job(video, target) for target, video in sorted(targets.items())]


def choose_shard(text: str, environment: Mapping[str, str] = os.environ) -> Shard:
    """Read ``--shard``.

    Args:
        text: ``i/n``, from 0/n to n-1/n; ``none``; or ``auto``: what torchrun or srun, and Slurm's
            job arrays say, both of them if there are both.
        environment: the environment variables.

    Raises:
        ConfigError: the text, or a variable, is none of that.
    """
    if text == "none":
        return Shard()
    if text != "auto":
        part, _, count = text.partition("/")
        if not (part.isdecimal() and count.isdecimal() and int(part) < int(count)):
            raise ConfigError(
                f"--shard {text}: give i/n with i from 0 to n - 1 (0/4 to 3/4 for four parts), "
                "auto or none."
            )
        return Shard(int(part), int(count), "--shard")
    shard = Shard()
    if "SLURM_ARRAY_TASK_COUNT" in environment:
        first = _number(environment, "SLURM_ARRAY_TASK_MIN")
        step = _number(environment, "SLURM_ARRAY_TASK_STEP", 1)
        index = (_number(environment, "SLURM_ARRAY_TASK_ID") - first) // max(step, 1)
        shard = Shard(index, _number(environment, "SLURM_ARRAY_TASK_COUNT"), "Slurm array")
    if "WORLD_SIZE" in environment:
        rank, world = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
        shard = _within(shard, rank, world, "torchrun")
    elif (tasks := tasks_of_step(environment)) > 1:
        shard = _within(shard, _number(environment, "SLURM_PROCID", 0), tasks, "srun")
    if not 0 <= shard.index < max(shard.count, 1):
        raise ConfigError(
            f"--shard auto: {shard.origin} says part {shard.index} of {shard.count}, from 0; "
            "give --shard i/n yourself, or --shard none."
        )
    return shard


def _within(shard: Shard, index: int, count: int, origin: str) -> Shard:
    """Part ``index`` of ``count`` of a part."""
    both = f"{shard.origin} and {origin}" if shard.origin else origin
    return Shard(shard.index * count + index, shard.count * count, both)


def _below(folder: Path) -> dict[PurePosixPath, Path]:
    found = {
        PurePosixPath(path.relative_to(folder).as_posix()): path
        for path in _files(folder)
        if path.suffix.lower() in VIDEO_SUFFIXES
    }
    if not found:
        raise ConfigError(
            f"{folder}: holds no video ({', '.join(VIDEO_SUFFIXES)}); name another folder, "
            "or the files themselves."
        )
    return found


def _files(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Files below a folder and the folders linked in it, but for hidden ones.

    Args:
        folder: where to look.
        above: the folders it was come by; a link to one of them leads nowhere new.
    """
    real = folder.resolve()
    if real in above:
        return
    try:
        found = sorted(folder.iterdir())
    except PermissionError:  # as of lost+found
        return
    for path in found:
        if path.name.startswith("."):  # a system's own, such as ._tea.mp4 beside tea.mp4
            continue
        if path.is_dir():
            yield from _files(path, above | {real})
        elif path.is_file():
            yield path


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise ConfigError(
            f"--shard auto: the environment variable {name} is {text!r}, not a number; give "
            "--shard i/n yourself, or --shard none."
        )
    return int(text)
