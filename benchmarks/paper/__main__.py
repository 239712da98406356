"""Run the study of what the framework learns, and write its page.

python -m benchmarks.paper run /tmp/study --seeds 1,2,3 --jobs 8 --threads 2
python -m benchmarks.paper run /tmp/study --only rho context/parts_summarize
python -m benchmarks.paper report /tmp/study --out docs/results.md
python -m benchmarks.paper compare /tmp/study
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from benchmarks.paper.committed import read_runs, repeats
from benchmarks.paper.jobs import ROOT, make_jobs
from benchmarks.paper.page import numbers_of, write_page
from benchmarks.paper.plan import read_plan
from benchmarks.paper.results import Study
from benchmarks.paper.runner import Runner, exit_code, summary, write_error
from proassist_lit.commands.terminal import count
from proassist_lit.errors import ConfigError, ProAssistError
from proassist_lit.processors import num_processors

NUMBERS = numbers_of(ROOT / "docs" / "results.md")


def _seeds(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < math.inf:  # nor is NaN
        raise argparse.ArgumentTypeError(
            f"{text} is not a finite number above 0; leave it out for no limit"
        )
    return minutes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run what is missing; again the same command: go on")
    run.add_argument("study", type=Path, metavar="DIR", help="directory of the study")
    run.add_argument(
        "--only", nargs="+", default=[], metavar="TABLE[/ROW]", help="these tables or rows alone"
    )
    run.add_argument(
        "--without", nargs="+", default=[], metavar="TABLE[/ROW]", help="all but these"
    )
    run.add_argument("--seeds", type=_seeds, default=[1, 2, 3], help="default: 1,2,3")
    run.add_argument("--jobs", type=count, metavar="N", help="runs at a time (cores / threads)")
    run.add_argument(
        "--threads", type=count, default=1, metavar="T", help="of each run (default: 1)"
    )
    run.add_argument(
        "--minutes", type=_minutes, help="stop gently after so many; go on another time"
    )
    run.add_argument(
        "--cook", type=Path, metavar="DIR", help="annotation files of CaptainCook4D, for its table"
    )
    run.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", dest="extra",
        help="settings of all runs, say logger.wandb=disabled",
    )  # fmt: skip
    run.add_argument(
        "--commit", default="", help="of the sources, where they were copied without their git"
    )
    report = commands.add_parser("report", help="write the page from the runs that are there")
    report.add_argument("study", type=Path, metavar="DIR", help="directory of the study")
    report.add_argument(
        "--out", type=Path, default=Path("docs/results.md"), help="default: docs/results.md"
    )
    report.add_argument(
        "--fresh", action="store_true",
        help="from the runs of DIR alone; without it the rows and seeds that it lacks are those "
        "that were kept beside the page",
    )  # fmt: skip
    report.add_argument(
        "--all", action="store_true", dest="everything",
        help="write all sections anew; without it those stay of which DIR has no run",
    )  # fmt: skip
    report.add_argument(
        "--only", nargs="+", default=[], metavar="TABLE",
        help="write these sections alone; others, of which rows were run again, too, say so",
    )  # fmt: skip
    compare = commands.add_parser(
        "compare", help="tell whether the runs that are there reach the numbers of the page"
    )
    compare.add_argument("study", type=Path, metavar="DIR", help="directory of the study")
    compare.add_argument(
        "--with", type=Path, default=NUMBERS, dest="numbers", metavar="FILE",
        help="what `report` wrote (default: that of docs/results.md)",
    )  # fmt: skip
    return parser


def compare(arguments: argparse.Namespace) -> int:
    """Print every number beside the one that was kept; return 1 where one differs."""
    plan = read_plan()
    found = list(repeats(Study(arguments.study.resolve(), plan), arguments.numbers))
    print("\n".join(map(str, found)))
    differ = sum(not repeat.agrees for repeat in found)
    print(f"{len(found) - differ} of {len(found)} numbers agree")
    return 1 if differ else 0


def report(arguments: argparse.Namespace) -> None:
    """Write the page; say what was written, and which of the kept runs were left out."""
    plan = read_plan()
    numbers = numbers_of(arguments.out)
    kept = [] if arguments.fresh or not numbers.exists() else read_runs(numbers)
    study = Study(arguments.study.resolve(), plan, kept)
    for run in study.outdated:
        print(f"{run.row}/seed{run.seed}: kept, but not as the plan has it; left out")
    everything = arguments.everything or arguments.fresh
    names = [table.name for table in plan.tables]
    for unknown in (name for name in arguments.only if name not in names):
        raise ConfigError(
            f"--only {unknown}: there is no such table; there are {', '.join(names)}."
        )
    written = write_page(plan, study, arguments.out, everything=everything, only=arguments.only)
    print("\n".join(map(str, written)))


def run(arguments: argparse.Namespace) -> int:
    """Run the missing jobs; return the exit code."""
    from benchmarks.paper.settings import check_rows, prepare_data  # with torch

    study = arguments.study.resolve()
    root = arguments.cook.resolve() if arguments.cook else None
    at_once = arguments.jobs or max(1, num_processors() // arguments.threads)
    rows = read_plan().select(arguments.only, cook=root is not None, without=arguments.without)
    jobs = make_jobs(rows, study, seeds=arguments.seeds, extra=arguments.extra, root=root)
    configs = check_rows(jobs)
    seconds = None if arguments.minutes is None else 60 * arguments.minutes
    runner = Runner(
        jobs, at_once=at_once, threads=arguments.threads, seconds=seconds, commit=arguments.commit
    )
    study.mkdir(parents=True, exist_ok=True)
    prepare_data(configs)
    outcome = runner.run()
    print(summary(outcome))
    return exit_code(outcome)


def main() -> int:
    """Run the command; return its exit code."""
    arguments = _parser().parse_args()
    try:
        if arguments.command == "run":
            return run(arguments)
        if arguments.command == "compare":
            return compare(arguments)
        report(arguments)
    except ProAssistError as error:
        write_error(str(error))
        return 2
    except KeyboardInterrupt:
        write_error("interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
