"""What judging would take, told before anything is asked."""

from __future__ import annotations

from collections.abc import Sequence

from proassist_lit.judge.answer_file import AnswerFile
from proassist_lit.judge.request import JudgeSettings, Request, distinct
from proassist_lit.judge.usage import Prices


def describe_plan(
    requests: Sequence[Request],
    answers: AnswerFile,
    settings: JudgeSettings,
    prices: Prices | None,
) -> str:
    """Requests, tokens, and the highest cost if there are ``prices``; one line each."""
    wanted = distinct(requests)
    todo = [request for request in wanted if request not in answers]
    num_in = sum(request.num_tokens for request in todo)
    num_out = len(todo) * settings.max_tokens
    num_streams = len({request.stream_id for request in requests})
    lines = [
        f"{num_streams} stream{'s' * (num_streams != 1)}, {len(wanted)} requests to "
        f"{settings.model} at {settings.server}: {len(wanted) - len(todo)} answered already, "
        f"{len(todo)} to ask",
        f"about {num_in:,} tokens in (4 characters each), at most {num_out:,} out",
    ]
    if prices is not None:
        lines.append(f"cost: at most about {prices.cost(num_in, num_out):.4f}")
    return "\n".join((*lines, "dry run: nothing was asked", ""))
