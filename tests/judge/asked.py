"""Questions, how they are asked, and the answers that are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from proassist_lit.judge.answer import Answer
from proassist_lit.judge.answer_file import AnswerFile
from proassist_lit.judge.asking import Tally, ask_all
from proassist_lit.judge.client import JudgeServer
from proassist_lit.judge.request import Request
from tests.judge.fakes import request

MANY = [request(f"question {i}") for i in range(12)]


def ask(
    requests: Sequence[Request],
    server: JudgeServer,
    path: Path,
    *,
    concurrency: int = 1,
    **options: object,
) -> Tally:
    with AnswerFile(path / "answers.jsonl").appending() as answers:
        return asyncio.run(
            ask_all(requests, server, answers, concurrency=concurrency, **options)  # type: ignore[arg-type]
        )


def kept(path: Path, requests: Sequence[Request]) -> list[Answer]:
    return AnswerFile(path / "answers.jsonl").find(requests)
