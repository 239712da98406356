"""Runs with streams to judge, and the command that has them judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from proassist_lit.commands.main import main
from proassist_lit.run_directory import RunDirectory
from tests.commands.lines import Captured
from tests.judge.fakes import FakeServer, transcript

WAITS = ["--backoff-s", "0.001", "--tries", "2", "--timeout-s", "5"]


def make_run(path: Path, said: str, names: Sequence[str] = ("s0", "s1", "s2", "s3")) -> Path:
    run = RunDirectory(path)
    streams = [transcript(name, said={1: f"{said} {name}"}) for name in names]
    for stream in streams:
        run.write_stream("test", stream)
    run.write_stream_index({"test": streams})
    return path


def judge(run: Path, fake: FakeServer | None, *options: str) -> int:
    server = [] if fake is None else ["--base-url", fake.url, *WAITS]
    return main(["judge", str(run), "--model", "fake", *server, *options])


def metrics(run: Path) -> dict[str, object]:
    return json.loads((run / "metrics.json").read_text())


def said_on_stderr(capsys: Captured) -> list[str]:
    return capsys.readouterr().err.splitlines()
