"""The directory of a run: where everything it leaves behind lies."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from proassist_lit.atomic import write_text
from proassist_lit.errors import ConfigError
from proassist_lit.evaluation.result import EvaluationResult, SweepPoint
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.stream_file import read_streams, write_index, write_stream
from proassist_lit.types import Transcript

LATEST = "latest"
"""Name of the link to the run that began last, beside the runs."""


def follow_latest(path: Path) -> Path:
    """``path`` without the link ``latest``: what it leads to now.

    Every run that begins moves the link, so whoever goes on to write by it follows it at the start.
    Other links stay as they are written: runs and checkpoints may lie on another disk.
    """
    followed = Path()
    for part in path.parts:
        link = followed / part
        is_link = part == LATEST and link.is_symlink()
        followed = followed / os.readlink(link) if is_link else link
    return followed


class RunDirectory:
    """Names and writes the files of a run; every write is atomic.

    Args:
        path: the directory; made if need be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoints(self) -> Path:
        """Folder of ``best.ckpt`` and ``last.ckpt``."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """The latest state of training; may not exist yet."""
        return self.checkpoints / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """The state with the lowest loss on val; may not exist yet."""
        return self.checkpoints / "best.ckpt"

    def check_begins(self, resume: str) -> None:
        """Refuse to train over a run that lies here.

        Args:
            resume: the setting: none, auto, or the path of a checkpoint.

        Raises:
            ConfigError: there is a run here, and training is not to go on from one of its
                checkpoints.
        """
        if resume == "auto" or not self.last_checkpoint.exists():
            return
        if resume != "none" and self.holds(resume):
            return
        raise ConfigError(
            f"{self.path}: holds a run already, which resume={resume} would write over; add "
            "resume=auto to go on with it, or choose another hydra.run.dir."
        )

    def check_evaluates(self, checkpoint: Path | None, option: str) -> None:
        """Refuse to write the results of another state over those of the run that lies here.

        Args:
            checkpoint: what is evaluated; None if it is no run's.
            option: which names this directory.

        Raises:
            ConfigError: a run lies here, whose last state is another.
        """
        last = self.last_checkpoint
        if last.exists() and (checkpoint is None or checkpoint.resolve() != last.resolve()):
            raise ConfigError(
                f"{option} {self.path}: holds a run, and the results there are of its last state; "
                f"name another folder, or leave {option} out."
            )

    def holds(self, checkpoint: str) -> bool:
        """Whether a path is of one of the checkpoints here."""
        return self.checkpoints.resolve() in Path(checkpoint).resolve().parents

    @contextmanager
    def config_of_checkpoint(self) -> Iterator[None]:
        """Put ``config.yaml`` back if what is done here fails and leaves ``last.ckpt`` as it was.

        So whatever reads both, or goes on, finds the settings that the checkpoint was made with.
        """
        path, stamp = self.path / "config.yaml", _stamp(self.last_checkpoint)
        before = path.read_text(encoding="utf-8") if path.exists() else None
        try:
            yield
        except BaseException:  # Ctrl-C and signals, too
            if before is not None and stamp is not None and stamp == _stamp(self.last_checkpoint):
                write_text(path, before)
            raise

    @property
    def metrics_csv(self) -> Path:
        """Training curves."""
        return self.path / "metrics.csv"

    @property
    def wandb_id(self) -> Path:
        """Id of the W&B run, in a line; may not exist."""
        return self.path / "wandb_id"

    @property
    def batch_size(self) -> Path:
        """The batch size that was looked for, as JSON; may not exist."""
        return self.path / "batch_size.json"

    @property
    def learning_rate(self) -> Path:
        """The peak rate that was looked for, as JSON; may not exist."""
        return self.path / "learning_rate.json"

    @property
    def answers(self) -> Path:
        """Folder of streams that a stopped evaluation has answered; may not exist."""
        return self.path / "answers"

    @property
    def report(self) -> Path:
        """The report, one self-contained page."""
        return self.path / "report.html"

    @property
    def judge(self) -> Path:
        """What a language model said of the streams; may not exist yet."""
        return self.path / "judge.json"

    @property
    def judge_answers(self) -> Path:
        """Every answer of a judge, as it was paid for; may not exist yet."""
        return self.path / "judge_answers.jsonl"

    def read_metrics(self) -> dict[str, float | str]:
        """Read ``metrics.json``; empty if there is none yet.

        Raises:
            ConfigError: it is not one.
        """
        path = self.path / "metrics.json"
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path}: cannot be read: {error}; mend it, or move it away and evaluate the run "
                "again."
            ) from error
        if not isinstance(metrics, dict):
            raise ConfigError(f"{path}: holds no object; evaluate the run again.")
        return metrics

    def set_metrics_aside(self) -> None:
        """Keep ``metrics.json`` as ``metrics_before.json``: training goes on behind its state.

        Its streams are no longer listed; those of the state to come take their places.
        """
        path = self.path / "metrics.json"
        if path.exists():
            path.replace(self.path / "metrics_before.json")
        for name in ("streams.json", "sweep.json"):
            (self.path / name).unlink(missing_ok=True)

    def write_metrics(self, metrics: Mapping[str, float | str]) -> None:
        """Write ``metrics.json``, flat and sorted."""
        write_text(
            self.path / "metrics.json", json.dumps(dict(sorted(metrics.items())), indent=2) + "\n"
        )

    def write_stream(self, split: str, transcript: Transcript) -> None:
        """Write ``streams/<split>_<stream>.json``."""
        write_stream(self._stream_file(split, transcript), transcript)

    def write_stream_index(self, transcripts: Mapping[str, Sequence[Transcript]]) -> None:
        """Write ``streams.json``: which streams there are, by split."""
        write_index(
            self.path / "streams.json",
            [
                (split, self._stream_file(split, t), t)
                for split, ts in transcripts.items()
                for t in ts
            ],
        )

    def read_streams(self) -> dict[str, list[Transcript]]:
        """Answered streams by split.

        Raises:
            StreamError: the index or a stream cannot be read; the message names the file.
        """
        return read_streams(self.path / "streams.json")

    def write_result(self, result: EvaluationResult) -> None:
        """Write what an evaluation found, but for the streams, which were written one by one."""
        self.write_stream_index(result.transcripts)
        rows = [
            {"split": split, **vars(point)}
            for split, points in result.sweep.items()
            for point in points
        ]
        write_text(self.path / "sweep.json", json.dumps(rows, indent=1) + "\n")
        self.write_metrics(result.metrics)

    def read_result(self, config: StreamConfig) -> EvaluationResult:
        """What the evaluation of a run found.

        Args:
            config: stream settings of the run.

        Raises:
            ConfigError: the metrics are missing or cannot be read.
            StreamError: so are the streams.
        """
        transcripts = self.read_streams()
        metrics = self.read_metrics()
        if not metrics:
            raise ConfigError(
                f"{self.path / 'metrics.json'}: there is none; the run was not evaluated to its "
                "end, do it now (proassist-lit evaluate RUN --out RUN)."
            )
        last = [*transcripts][-1] if transcripts else "test"
        thetas = {name: metrics.get(f"{last}/{name}") for name in ("theta_speak", "theta_dst")}
        result = EvaluationResult(
            config=replace(config, **thetas),  # type: ignore[arg-type]
            metrics=metrics,
            transcripts=transcripts,
        )
        sweep = self.path / "sweep.json"
        for row in json.loads(sweep.read_text(encoding="utf-8")) if sweep.is_file() else ():
            result.sweep.setdefault(row.pop("split"), []).append(SweepPoint(**row))
        return result

    def _stream_file(self, split: str, transcript: Transcript) -> Path:
        own = f"{split}_{transcript.stream_id}"
        name = re.sub(r"[^\w.-]+", "_", own)
        if name != own:  # others may become the same
            name += f"_{hashlib.sha256(own.encode()).hexdigest()[:8]}"
        return self.path / "streams" / f"{name}.json"

    def read_notes(self) -> dict[str, str]:
        """Read ``notes.json``; empty if there is none that can be read: it decides nothing."""
        try:
            notes = json.loads((self.path / "notes.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return notes if isinstance(notes, dict) else {}

    def write_notes(self, notes: Mapping[str, str]) -> None:
        """Write ``notes.json``: how the run was made (``run_notes``), and what came of it."""
        write_text(self.path / "notes.json", json.dumps(notes, indent=2) + "\n")

    def point_latest(self, base: Path) -> None:
        """Let the link ``latest`` in ``base`` point here; silently not where links are refused."""
        link = base / LATEST
        temporary = base / f".latest.{os.getpid()}"
        try:
            temporary.symlink_to(os.path.relpath(self.path.resolve(), base.resolve()))
            temporary.replace(link)
        except OSError:  # no links on this file system: a convenience only
            temporary.unlink(missing_ok=True)


def _stamp(path: Path) -> tuple[int, int] | None:
    """Another one for every file that takes the place of ``path``; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
