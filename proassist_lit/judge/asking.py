"""Asks many requests at once and keeps every answer as it comes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from proassist_lit.judge.answer_file import AnswerFile
from proassist_lit.judge.client import (
    JudgeClient,
    JudgeServer,
    RefusedError,
    RejectedError,
    RequestError,
)
from proassist_lit.judge.request import Request, distinct
from proassist_lit.judge.usage import Usage

_FAILURES_IN_A_ROW = 5
"""So many requests given up without an answer between them, and the server is taken as down."""


@dataclass(kw_only=True)
class Tally:
    """How far the asking is.

    Attributes:
        num_requests: how many answers are wanted.
        num_kept: how many of them were there before.
        asked: what was answered now.
        failures: how many requests finally failed, by cause.
        examples: what the server said, for each cause the first time.
        stopped: why the rest was not asked; empty if it was.
    """

    num_requests: int
    num_kept: int
    asked: Usage = field(default_factory=Usage)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    stopped: str = ""

    @property
    def num_missing(self) -> int:
        """How many answers are not there."""
        return self.num_requests - self.num_kept - self.asked.num_answers

    def why_missing(self) -> list[str]:
        """In words: how many answers of how many are missing, and each cause with its count."""
        lines = [f"{self.num_missing} of {self.num_requests} answers are missing."]
        lines += [
            f"{n} request{'s' * (n > 1)} failed: {self.examples[cause]}"
            for cause, n in self.failures.most_common()
        ]
        if not_asked := self.num_missing - self.failures.total():
            lines.append(f"{not_asked} not asked any more: {self.stopped}")
        return lines


async def ask_all(
    requests: Sequence[Request],
    server: JudgeServer,
    answers: AnswerFile,
    *,
    concurrency: int,
    on_change: Callable[[Tally], None] | None = None,
    give_up_after: int = _FAILURES_IN_A_ROW,
) -> Tally:
    """Ask what ``answers`` does not hold yet; each answer is kept before the next is asked.

    Asking stops early when the server refuses for good, or when it seems to be down. Cancelled
    (Ctrl-C), it waits for the answers under way: they are paid for.

    Args:
        requests: in the order in which they are asked.
        server: where to ask.
        answers: open for appending.
        concurrency: how many are under way at once, at least 1.
        on_change: told at the start, and after every answer and failure.
        give_up_after: requests that fail in a row until the server is taken as down. Those that
            fail for what may lie in them alone count once a stream: all about one that is too long
            for the model fail together, and say nothing of the server.

    Returns:
        What came of it; failures of requests are no exceptions.

    Raises:
        JudgeError: an answer cannot be kept.
    """
    wanted = distinct(requests)
    todo = [request for request in wanted if request not in answers]
    tally = Tally(num_requests=len(wanted), num_kept=len(wanted) - len(todo))
    stop = asyncio.Event()
    queue = iter(todo)
    in_a_row: set[str] = set()  # what failed since the last answer: requests, or whole streams
    if on_change is not None:
        on_change(tally)

    async def work(client: JudgeClient) -> None:
        for request in queue:
            try:
                answer = await client.ask(request, stop)
                answers.add(request, answer)
                tally.asked = tally.asked.plus(answer)
                in_a_row.clear()
            except RequestError as error:
                tally.failures[error.cause] += 1
                tally.examples.setdefault(error.cause, str(error))
                is_own = isinstance(error, RejectedError)
                in_a_row.add(request.stream_id if is_own else request.key)
                if isinstance(error, RefusedError):
                    tally.stopped = tally.stopped or "the server refuses"
                elif len(in_a_row) >= give_up_after:
                    tally.stopped = tally.stopped or f"{len(in_a_row)} failures in a row"
                if tally.stopped:
                    stop.set()
            except BaseException:
                stop.set()
                raise
            if on_change is not None:
                on_change(tally)
            if stop.is_set():
                return

    async with JudgeClient(server) as client:
        workers = [asyncio.create_task(work(client)) for _ in range(min(concurrency, len(todo)))]
        if workers:
            try:
                await asyncio.wait(workers)
            except asyncio.CancelledError:
                stop.set()
                tally.stopped = "interrupted"
                if on_change is not None:
                    on_change(tally)
                await asyncio.wait(workers)
                raise
        for worker in workers:
            worker.result()
    return tally
