"""``proassist-lit report``: write the report of a run anew, beside another run if you like."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proassist_lit.commands.terminal import ready_file, writing_to
from proassist_lit.errors import ConfigError, ProAssistError

if TYPE_CHECKING:
    from proassist_lit.run_directory import RunDirectory


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of the program."""
    parser = commands.add_parser(
        "report",
        help="write the report of a run anew, beside another run if you like",
        description="Write report.html of a run from what it left behind, without its model. "
        "Where its data is not at hand, the streams have no pictures.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a run or an evaluation")
    parser.add_argument(
        "--against", type=Path, metavar="OTHER", help="a run whose metrics stand beside"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the page to write (default: RUN/report.html)"
    )
    parser.add_argument(
        "--streams", type=int, metavar="N", help="streams of each split (default: as configured)"
    )
    parser.set_defaults(run_command=report)


def report(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from proassist_lit.config import RunConfig
    from proassist_lit.config_schema import read_config
    from proassist_lit.data.dataset import load_data
    from proassist_lit.lit.quiet import quiet_libraries
    from proassist_lit.metrics.similarity import build_similarity
    from proassist_lit.report.from_run import gather_report
    from proassist_lit.report.html import write_report
    from proassist_lit.run_directory import RunDirectory, follow_latest

    if arguments.streams is not None and arguments.streams < 0:
        raise ConfigError(f"--streams {arguments.streams}: must be at least 0; 0 shows none.")
    quiet_libraries()
    folder = follow_latest(arguments.run)  # data may have to be drawn before the page is written
    config_file = folder / "config.yaml"
    config = read_config(RunConfig, config_file)
    run = RunDirectory(folder)
    result = run.read_result(config.stream)
    out = arguments.out or run.report
    ready_file("--out", out)
    earlier = None
    if arguments.against is not None:
        read_config(RunConfig, arguments.against / "config.yaml")  # a run, not any folder
        earlier = RunDirectory(arguments.against)
        if not earlier.read_metrics():
            raise ConfigError(
                f"--against {arguments.against}: has no metrics.json; evaluate it first "
                "(proassist-lit evaluate)."
            )
    try:
        data = load_data(config.data, as_released=config.reads_as_released)
    except ProAssistError as error:
        sys.stderr.write(f"no pictures: {error}\n")
        data = {}
    many = arguments.streams
    page = gather_report(
        config.name, _trained(run), result, data,
        config.matcher(build_similarity(config.evaluation.similarity)),
        config_yaml=config_file.read_text(encoding="utf-8"),
        notes=RunDirectory(folder).read_notes(),
        max_streams=config.evaluation.report_streams if many is None else many,
        earlier=earlier,
    )  # fmt: skip
    with writing_to("--out", out):
        write_report(out, page)
    sys.stdout.write(f"wrote {out}\n")
    return 0


def _trained(run: RunDirectory) -> RunDirectory:
    """The run with the curves of training: of an evaluation, that in whose folder it lies."""
    from proassist_lit.run_directory import RunDirectory

    folder = run.path.resolve().parent
    if folder.name == "evaluations" and not run.metrics_csv.exists():
        return RunDirectory(folder.parent)
    return run
