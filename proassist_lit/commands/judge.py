"""``proassist-lit judge``: a language model judges the streams of a run."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proassist_lit.commands.terminal import console, count, write
from proassist_lit.errors import ConfigError

if TYPE_CHECKING:
    from proassist_lit.judge.answer_file import AnswerFile
    from proassist_lit.judge.asking import Tally
    from proassist_lit.judge.client import JudgeServer
    from proassist_lit.judge.pairs import RunComparison
    from proassist_lit.judge.request import JudgeSettings, Request
    from proassist_lit.judge.scores import SplitScores
    from proassist_lit.judge.usage import Prices
    from proassist_lit.run_directory import RunDirectory
    from proassist_lit.types import Transcript

_URL_VARIABLE = "OPENAI_BASE_URL"


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of the program."""
    parser = commands.add_parser(
        "judge",
        help="let a language model judge the streams of a run, or compare two runs",
        description="Let a language model score the answered streams of a run in four aspects, "
        "1 to 5, or say which of two runs did better. Every answer is kept in RUN at once; run "
        "again, only missing ones are asked. Exit code 0: judged, 1: answers are missing or none "
        "could be read, 2: something given is wrong.",
    )
    add = parser.add_argument
    add("directory", type=Path, metavar="RUN", help="directory of an evaluated run")
    add("--against", type=Path, metavar="OTHER", help="compare with this run instead of scoring")
    add("--split", default="test", metavar="NAME", help="which streams (default: test)")
    add("--model", default="gpt-4o-mini", metavar="NAME", help="the judge (default: %(default)s)")
    add(
        "--base-url",
        metavar="URL",
        help=f"OpenAI-compatible server, up to /v1 (default: the variable {_URL_VARIABLE}; without "
        "it OpenAI's own, if --key-env is given)",
    )
    add(
        "--key-env",
        metavar="VARIABLE",
        help="name of the environment variable that holds the key, e.g. OPENAI_API_KEY (default: "
        "no key is sent)",
    )
    add(
        "--repeats",
        type=int,
        default=3,
        metavar="N",
        help="answers averaged; with --against, each way (default: %(default)s)",
    )
    add(
        "--concurrency",
        type=count,
        default=4,
        metavar="N",
        help="requests under way at once (default: %(default)s)",
    )
    add("--max-streams", type=count, metavar="N", help="judge the first N only")
    add(
        "--temperature",
        type=float,
        default=1.0,
        metavar="X",
        help="of the judge's sampling; near 0 repeats hardly differ (default: %(default)s)",
    )
    add(
        "--max-tokens",
        type=int,
        default=4096,
        metavar="N",
        help="longest answer (default: %(default)s)",
    )
    add(
        "--timeout-s",
        type=float,
        default=120.0,
        metavar="S",
        help="longest time of one try (default: %(default)s)",
    )
    add(
        "--tries",
        type=count,
        default=5,
        metavar="N",
        help="how often a request is tried (default: %(default)s)",
    )
    add(
        "--backoff-s",
        type=float,
        default=1.0,
        metavar="S",
        help="wait after the first failed try; doubles with each (default: %(default)s)",
    )
    add("--price-in", type=float, metavar="X", help="price of a million tokens asked")
    add("--price-out", type=float, metavar="X", help="price of a million tokens answered")
    add("--dry-run", action="store_true", help="say what it would take, and ask nothing")
    parser.set_defaults(run_command=judge)


def judge(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from proassist_lit.judge.answer_file import AnswerFile
    from proassist_lit.judge.client import address
    from proassist_lit.judge.plan import describe_plan
    from proassist_lit.judge.request import JudgeSettings

    settings = JudgeSettings(
        model=arguments.model,
        server=address(_base_url(arguments)),
        repeats=arguments.repeats,
        temperature=arguments.temperature,
        max_tokens=arguments.max_tokens,
    )
    prices = _prices(arguments.price_in, arguments.price_out)
    run = _open_run(arguments.directory)
    answers = AnswerFile(run.judge_answers)
    task = (_Comparing if arguments.against else _Scoring)(run, arguments, settings)
    if arguments.dry_run:
        write(describe_plan(task.requests, answers, settings, prices))
        return 0
    tally = _ask(task.requests, _server(arguments), answers, arguments.concurrency, prices)
    found = task.finish(answers)
    write(
        f"asked now: {tally.asked.num_answers} answers, {tally.asked.describe(prices)}\n"
        f"all in all: {found.usage.num_answers} answers, {found.usage.describe(prices)}\n"
    )
    return _exit_code(tally, found, run)


class _Scoring:
    """Four scores for every stream."""

    def __init__(
        self, run: RunDirectory, arguments: argparse.Namespace, settings: JudgeSettings
    ) -> None:
        from proassist_lit.judge.result_file import ResultFile
        from proassist_lit.judge.scores import score_requests

        # What cannot be written to in the end is better known before anything is paid for.
        self._results, _ = ResultFile(run.judge), run.read_metrics()
        self._run, self._split, self._settings = run, arguments.split, settings
        transcripts = _streams(run, self._split)[: arguments.max_streams]
        self._by_stream = score_requests(transcripts, settings)
        self.requests = [r for requests in self._by_stream.values() for r in requests]

    def finish(self, answers: AnswerFile) -> SplitScores:
        """Write and show what the answers say."""
        from proassist_lit.judge.scores import score_streams
        from proassist_lit.report.judge_table import score_table

        scores = score_streams(self._by_stream, answers, self._settings)
        self._results.write_scores(self._split, scores.to_json())
        prefix = f"judge/{self._split}/"
        old = {k: v for k, v in self._run.read_metrics().items() if not k.startswith(prefix)}
        new = {f"{prefix}{name}": value for name, value in scores.metrics().items()}
        self._run.write_metrics(old | new)
        console().print(score_table(self._split, scores))
        return scores


class _Comparing:
    """Whose dialogue is better, for every stream that two runs share."""

    def __init__(
        self, run: RunDirectory, arguments: argparse.Namespace, settings: JudgeSettings
    ) -> None:
        from proassist_lit.judge.pairs import common_streams, pair_requests
        from proassist_lit.judge.result_file import ResultFile

        other = _open_run(arguments.against)
        self._results, self._here, self._there = ResultFile(run.judge), run.path, other.path
        self._split, self._settings = arguments.split, settings
        common = common_streams(*(_streams(one, self._split) for one in (run, other)))
        if not common.pairs:
            raise ConfigError(
                f"{run.path} and {other.path} share no stream of {self._split}; compare runs that "
                "were evaluated on the same data."
            )
        self._left_out = {
            f"only in {run.path}": common.only_here,
            f"only in {other.path}": common.only_there,
            "another reference or user": common.differing,
        }
        pairs = common.pairs[: arguments.max_streams]
        self._pairs = [pair_requests(here, there, settings) for here, there in pairs]
        self.requests = [r for pair in self._pairs for r in pair.in_order()]

    def finish(self, answers: AnswerFile) -> RunComparison:
        """Write and show what the answers say."""
        from proassist_lit.judge.pairs import compare_runs
        from proassist_lit.report.judge_table import comparison_table

        comparison = compare_runs(self._pairs, answers, self._settings, self._left_out)
        other = Path(os.path.relpath(self._there.resolve(), self._here.resolve()))
        self._results.write_comparison(other, self._split, comparison.to_json())
        names = self._here.resolve().name, self._there.resolve().name
        console().print(comparison_table(self._split, *names, comparison))
        for reason, streams in self._left_out.items():
            if streams:
                write(f"left out, {reason}: {', '.join(streams)}\n")
        return comparison


def _prices(prompt: float | None, completion: float | None) -> Prices | None:
    from proassist_lit.judge.usage import Prices

    if prompt is None and completion is None:
        return None
    if prompt is None or completion is None:
        raise ConfigError(
            "judge: one of --price-in and --price-out alone tells no cost; give both, 0 for free."
        )
    return Prices(prompt=prompt, completion=completion)


def _open_run(path: Path) -> RunDirectory:
    from proassist_lit.run_directory import RunDirectory, follow_latest

    path = follow_latest(path)  # what is judged now may not be the latest at the end
    if not path.is_dir():
        raise ConfigError(f"{path}: is no directory of a run; give one that holds streams.json.")
    return RunDirectory(path)


def _streams(run: RunDirectory, split: str) -> list[Transcript]:
    streams = run.read_streams()
    if not streams.get(split):
        raise ConfigError(
            f"--split {split}: {run.path} holds no such streams; it has "
            f"{', '.join(streams) or 'none at all'}."
        )
    return streams[split]


def _base_url(arguments: argparse.Namespace) -> str | None:
    return arguments.base_url or os.environ.get(_URL_VARIABLE) or None


def _server(arguments: argparse.Namespace) -> JudgeServer:
    """Where to ask. Nothing is sent to a server, and no key, that the user did not name."""
    from proassist_lit.judge.client import JudgeServer

    base_url, variable = _base_url(arguments), arguments.key_env
    key = os.environ.get(variable) if variable else None
    if variable and not key:
        raise ConfigError(
            f"--key-env {variable}: no such environment variable is set; export {variable}=..., "
            "or name another one."
        )
    if not base_url and not key:
        raise ConfigError(
            "judge: no server is given; give --base-url http://localhost:8000/v1 (or the variable "
            f"{_URL_VARIABLE}), or --key-env OPENAI_API_KEY for OpenAI's own server."
        )
    return JudgeServer(
        base_url=base_url,
        key=key,
        timeout_s=arguments.timeout_s,
        max_tries=arguments.tries,
        backoff_s=arguments.backoff_s,
    )


def _ask(
    requests: list[Request],
    server: JudgeServer,
    answers: AnswerFile,
    concurrency: int,
    prices: Prices | None,
) -> Tally:
    from proassist_lit.judge.asking import ask_all
    from proassist_lit.judge.progress import JudgeProgress

    try:
        with answers.appending(), JudgeProgress(prices) as progress:
            return asyncio.run(
                ask_all(requests, server, answers, concurrency=concurrency, on_change=progress.show)
            )
    except KeyboardInterrupt:
        sys.stderr.write(
            f"What was answered is kept in {answers.path}; the same command goes on from there.\n"
        )
        raise


def _exit_code(tally: Tally, found: SplitScores | RunComparison, run: RunDirectory) -> int:
    """Say what went wrong; 1 if answers are missing, or none can be read."""
    num_answered = tally.num_requests - tally.num_missing
    if found.unreadable:
        reasons = "; ".join(f"{n} x {reason}" for reason, n in found.unreadable.most_common())
        total = found.unreadable.total()
        _complain(f"{total} of {num_answered} answers are unreadable and not counted: {reasons}")
    if tally.num_missing:
        for line in tally.why_missing():
            _complain(line)
        _complain(
            f"the {num_answered} answers there are stand in {run.judge_answers} and are counted "
            "above; run the same command again to ask for the missing ones alone."
        )
        return 1
    if not found.num_judged:
        _complain(
            f"nothing could be judged; read the answers in {run.judge_answers}, and take another "
            "--model, or more --max-tokens."
        )
        return 1
    return 0


def _complain(text: str) -> None:
    sys.stderr.write(f"error: judge: {text}\n")
