"""Keeps what a session of the demo watched and answered, where the operator asked for it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from proassist_lit.errors import ConfigError
from proassist_lit.live.task import Task
from proassist_lit.streaming.stream_file import write_stream
from proassist_lit.types import FrameOutput, Reference, Transcript


@dataclass
class Recorder:
    """Writes into one new folder, whose name nobody but us chooses.

    Attributes:
        folder: the session's; its frames as JPEG, and ``stream.json`` when it is over.
        fps: frames per second.
    """

    folder: Path
    fps: float
    _frames: list[FrameOutput] = field(default_factory=list)

    @classmethod
    def below(cls, root: Path, fps: float) -> Recorder:
        """A recorder in a new folder below ``root``.

        Raises:
            ConfigError: it cannot be made.
        """
        folder = root / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{secrets.token_hex(4)}"
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise ConfigError(
                f"--record {root}: cannot be written to ({error.strerror or error}); choose "
                "another folder."
            ) from error
        return cls(folder, fps)

    def add(self, jpeg: bytes, output: FrameOutput) -> None:
        """Keep a frame that was watched."""
        (self.folder / f"{output.frame_idx:06d}.jpg").write_bytes(jpeg)
        self._frames.append(output)

    def close(self, task: Task) -> None:
        """Write the answers."""
        write_stream(
            self.folder / "stream.json",
            Transcript(
                stream_id=self.folder.name,
                dataset="demo",
                fps=self.fps,
                steps=tuple((step.id, step.name) for step in task.steps),
                frames=tuple(self._frames),
                references=(Reference(),) * len(self._frames),
            ),
        )
