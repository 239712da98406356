"""``proassist-lit evaluate``: stream with a trained model again, without a Trainer."""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proassist_lit.commands.terminal import console, ready_folder
from proassist_lit.commands.trained import find_trained, override

if TYPE_CHECKING:
    from rich.table import Table

    from proassist_lit.config import RunConfig
    from proassist_lit.evaluation.result import EvaluationResult
    from proassist_lit.run_directory import RunDirectory

SHOWN = (
    "utterance_f1", "utterance_precision", "utterance_recall", "content_accuracy",
    "dst_update_f1", "dst_joint_goal_accuracy", "speak_f1",
)  # fmt: skip
"""Metrics of the tables in the terminal."""


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of the program."""
    parser = commands.add_parser(
        "evaluate",
        help="stream with a trained model again, with other settings if you like",
        description="Stream val and test with a trained model: thresholds are chosen on val, all "
        "metrics and baselines computed, a report written. Any key of the configuration may be "
        "set: stream.strategy=drop_middle, evaluation.sweep_speak=[0.2,0.4,0.6] streams val with "
        "these thresholds, too, in one pass. Stopped, it goes on where it was.",
    )
    parser.add_argument(
        "run",
        type=Path,
        metavar="CKPT_OR_RUN",
        help="a run's directory, a .ckpt file in one, or a folder that export or import wrote",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="settings other than the run's"
    )
    parser.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="of a run: the last state, which the run itself evaluates, or that of the lowest loss "
        "on val (default: last)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where results go (default: RUN/evaluations/<time>)",
    )
    parser.set_defaults(run_command=evaluate)


def evaluate(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    import torch

    from proassist_lit.build import build_core
    from proassist_lit.config import RunConfig
    from proassist_lit.config_schema import write_config
    from proassist_lit.lit.quiet import quiet_libraries
    from proassist_lit.report.dashboard_files import DashboardFiles
    from proassist_lit.report.from_evaluation import gather_dashboard
    from proassist_lit.report.from_run import gather_report
    from proassist_lit.report.html import write_report
    from proassist_lit.run_directory import RunDirectory
    from proassist_lit.run_notes import gather_notes

    quiet_libraries()
    trained = find_trained(arguments.run, arguments.checkpoint, arguments.overrides)
    folder, config = trained.folder, trained.config
    target = _target(arguments.out, folder / "evaluations")
    out = RunDirectory(target)
    out.check_evaluates(trained.checkpoint, "--out")
    started = time.monotonic()
    # Windows of the run itself may be of other data than it is evaluated on now.
    given = [text for text in arguments.overrides if text.startswith("evaluation.windows")]
    windows = override(RunConfig(), given).evaluation.windows
    core = build_core(
        config,
        tokenizer_folder=trained.tokenizer,
        windows=windows,
        trained_size=trained.vision_size(),
    )
    trained.load_weights(core.model)
    core.model.to("cuda" if _wants_cuda(config) and torch.cuda.is_available() else "cpu")
    write_config(config, out.path / "config.yaml")
    before, notes = out.read_notes(), gather_notes(**trained.notes())
    if before.get("step", notes.get("step")) != notes.get("step"):
        out.set_metrics_aside()  # of another state; this one's may never come
    notes = before | notes  # those of training stay
    out.write_notes(notes)
    result = core.evaluator.evaluate(
        core.model, on_stream=out.write_stream, answers=_place_of_answers(RunDirectory(folder), out)
    )
    out.write_result(result)
    DashboardFiles(out).show(gather_dashboard(result, core.evaluator.matcher), 0)
    notes["duration"] = f"{time.monotonic() - started:.0f} s"
    out.write_notes(notes)
    report = gather_report(
        config.name, RunDirectory(folder), result, core.data, core.evaluator.matcher,
        config_yaml=(out.path / "config.yaml").read_text(encoding="utf-8"), notes=notes,
        max_streams=config.evaluation.report_streams,
    )  # fmt: skip
    write_report(out.report, report)
    core.evaluator.clear_answers()
    terminal = console()
    for table in result_tables(result):
        terminal.print(table)
    terminal.print(f"Report: {out.report}", highlight=False, soft_wrap=True)
    return 0


def _target(asked: Path | None, evaluations: Path) -> Path:
    """Folder for the results: what ``--out`` asks for, else one in ``evaluations`` of its own."""
    if asked is not None:
        ready_folder("--out", asked)
        return asked
    ready_folder("--out", evaluations)
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    names = chain([stamp], (f"{stamp}_{number}" for number in count(2)))
    return next(evaluations / name for name in names if _is_made(evaluations / name))


def _is_made(folder: Path) -> bool:
    """Make ``folder``; not so if somebody has, in the same second."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def result_tables(result: EvaluationResult) -> list[Table]:
    """What a terminal shows of a result: the splits and baselines, and the sweep if any."""
    from rich import box
    from rich.table import Table

    from proassist_lit.report.scoreboard import make_scoreboard, spoken_name

    board = make_scoreboard(result.metrics)
    overview = Table(box=box.SIMPLE_HEAD)
    overview.add_column("metric")
    for column in board.columns:
        overview.add_column(column.replace("_", " "), justify="right")
    for row in board.headline:
        cells = ["–" if value is None else f"{value:.3f}" for value in row.values]
        bold = [f"[b]{cell}[/b]" if b else cell for cell, b in zip(cells, row.best, strict=True)]
        overview.add_row(spoken_name(row.name), *bold)
    tables = [overview]
    for split, points in result.sweep.items():
        names = [name for name in SHOWN if any(name in point.metrics for point in points)]
        table = Table(title=f"thresholds streamed with on {split}", box=box.SIMPLE_HEAD)
        for name in ("theta_speak", "theta_dst", *names):
            table.add_column(spoken_name(name), justify="right")
        chosen = (result.config.theta_speak, result.config.theta_dst)
        for point in sorted(points, key=lambda p: (p.theta_dst != points[0].theta_dst,
                                                   p.theta_speak, p.theta_dst)):  # fmt: skip
            thetas = (point.theta_speak, point.theta_dst)
            table.add_row(
                *(f"{theta:.4g}" for theta in thetas),
                *(f"{point.metrics.get(name, float('nan')):.3f}" for name in names),
                style="bold" if thetas == chosen else "",
            )
        tables.append(table)
    return tables


def _place_of_answers(run: RunDirectory, out: RunDirectory) -> Path:
    """Where finished streams are kept: with the assistant, or with the results where it cannot be.

    Results of evaluations that are given again may go elsewhere: by the time, without ``--out``.
    """
    try:
        tempfile.TemporaryFile(dir=run.answers if run.answers.exists() else run.path).close()
    except OSError:  # somebody else's, or read only
        return out.answers
    return run.answers


def _wants_cuda(config: RunConfig) -> bool:
    return config.trainer.accelerator in ("auto", "gpu", "cuda")
