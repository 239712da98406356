"""One run: build, fit, answer the streams, write the report."""

from __future__ import annotations

import os
import time
from pathlib import Path

import lightning as L
from rich.console import Console

from proassist_lit.build import build_core
from proassist_lit.config import RunConfig
from proassist_lit.errors import CheckpointError
from proassist_lit.evaluation.result import EvaluationResult
from proassist_lit.evaluation.thresholds import worth
from proassist_lit.going_on import command_of_run
from proassist_lit.job_result import Pruned
from proassist_lit.lit.batch_size_search import with_found_batch_size
from proassist_lit.lit.build import (
    build_datamodule,
    build_module,
    build_trainer,
    find_resume,
    validate_at_the_end,
)
from proassist_lit.lit.callbacks import StreamingEvaluation
from proassist_lit.lit.devices import check_devices
from proassist_lit.lit.interrupt import interruptible
from proassist_lit.lit.logs import build_logs
from proassist_lit.lit.lr_search import with_found_lr
from proassist_lit.lit.parts import check_heads_train, check_trained_types, parts_table
from proassist_lit.lit.patience import early_end
from proassist_lit.lit.pruning import Pruning
from proassist_lit.lit.quiet import quiet_libraries
from proassist_lit.lit.requeue import ends_on_signal
from proassist_lit.lit.settings_checks import check_batches, check_optimizer, check_turns
from proassist_lit.rendezvous import is_first_process
from proassist_lit.report.from_run import gather_report
from proassist_lit.report.html import write_report
from proassist_lit.run_directory import RunDirectory
from proassist_lit.run_notes import gather_notes
from proassist_lit.sweep.trial import Trial


def train(config: RunConfig, run_dir: Path) -> float:
    """Train and evaluate as ``config`` says.

    Args:
        config: checked configuration.
        run_dir: directory of the run; everything is written there.

    Returns:
        Utterance F1 on val, for sweeps to optimise; speak F1 where nothing is written
        (``stream.words=false``).

    Raises:
        Pruned: the search that this run belongs to ended it early; there is no evaluation.
    """
    started = time.monotonic()
    quiet_libraries()
    run = RunDirectory(run_dir)
    checkpoint = find_resume(config, run)
    check_devices(config.trainer)
    notes = gather_notes() if is_first_process() else {}
    if command := command_of_run():
        notes["command"] = command
    L.seed_everything(config.seed, workers=True)
    tokenizer = _tokenizer_of(checkpoint, config) if checkpoint else None
    core = build_core(config, tokenizer_folder=tokenizer)
    begins_trained = bool(config.model.init_from)
    check_heads_train(
        core.model, config.objective, begins_trained=begins_trained, new=config.model.init_new
    )
    if not config.trainer.rounds_weights:
        check_trained_types(core.model)
    check_optimizer(config, core.model)
    check_turns(config)
    if is_first_process() and tokenizer != run.path / "tokenizer":
        core.chat.tokenizer.save_pretrained(run.path / "tokenizer")
    if config.trainer.find_batch_size:
        config = with_found_batch_size(config, core, run, resumes=checkpoint is not None)
        notes["batch size found"] = str(config.data.batch_size)
        Console().print(f"Batch size found: {config.data.batch_size}")
    datamodule = build_datamodule(config, core)
    if config.trainer.find_lr:
        config = with_found_lr(config, core, datamodule, run, resumes=checkpoint is not None)
        notes["learning rate found"] = f"{config.trainer.optimizer.lr:.3g}"
        Console().print(f"Learning rate found: {config.trainer.optimizer.lr:.3g}")
    logs = build_logs(config, run, checkpoint)
    failed = True
    try:
        evaluation = StreamingEvaluation(core.evaluator, run, logs.sinks, config.evaluation)
        trainer = build_trainer(config, run, evaluation, logs)
        num_batches = datamodule.batches_per_epoch(trainer.world_size)
        check_batches(config, num_batches, trainer.world_size)
        module = build_module(config, core, num_batches)
        validate_at_the_end(trainer, module.num_steps)
        if trainer.is_global_zero:
            Console().print(parts_table(core.model))
        pruning = Pruning(trial, evaluation) if (trial := Trial.from_environment()) else None
        if pruning is not None:
            trainer.callbacks.append(pruning)  # type: ignore[attr-defined]
        if trainer.is_global_zero:  # from here on it is this run that lies here
            run.write_notes(notes)
            _point_latest(run)
        with interruptible():
            trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
        if pruning is not None and pruning.pruned:
            failed = False
            raise Pruned(f"at step {trainer.global_step}")
        with ends_on_signal(run):
            result = evaluation.evaluate(trainer, module)
            if not trainer.is_global_zero:
                failed = False
                return _value(result)
            if reason := early_end(trainer):
                notes["training ended"] = f"at step {trainer.global_step}: {reason}"
            notes["duration"] = f"{time.monotonic() - started:.0f} s"
            run.write_notes(notes)
            config_file = run.path / "config.yaml"
            report = gather_report(
                config.name, run, result, core.data, core.evaluator.matcher,
                config_yaml=config_file.read_text(encoding="utf-8") if config_file.exists() else "",
                notes=notes, max_streams=config.evaluation.report_streams,
            )  # fmt: skip
            write_report(run.report, report)
            core.evaluator.clear_answers()
        failed = False
    finally:
        logs.finish(failed=failed)
    Console().print(_closing_words(result.metrics, run), highlight=False, soft_wrap=True)
    return _value(result)


def _tokenizer_of(checkpoint: str, config: RunConfig) -> Path | None:
    """The tokenizer of the run that ``checkpoint`` lies in: its weights mean the words of that one.

    Returns:
        None if there is none, and the configuration's own is the same whatever the data.
    """
    # as it is written before as it is linked: a run's checkpoints may lie on another disk
    for path in (Path(os.path.abspath(checkpoint)), Path(checkpoint).resolve()):
        if (found := path.parents[1] / "tokenizer").is_dir():
            return found
    if config.model.is_from_scratch:
        raise CheckpointError(
            f"resume={checkpoint}: {found} is missing, and another tokenizer, made of today's "
            "data, would give the weights other words; leave the checkpoint in the directory of "
            "its run, or copy tokenizer/, too."
        )
    return None


def _point_latest(run: RunDirectory) -> None:
    """Let ``outputs/latest`` point at the run."""
    for parent in (*Path(os.path.abspath(run.path)).parents, *run.path.resolve().parents):
        if parent.name == "outputs":
            run.point_latest(parent)
            break


def _value(result: EvaluationResult) -> float:
    """What sweeps compare: by it the threshold was chosen, too."""
    val = {
        name.removeprefix("val/"): value
        for name, value in result.metrics.items()
        if name.startswith("val/") and not isinstance(value, str)
    }
    return worth(val, "speak")


def _closing_words(metrics: dict[str, float | str], run: RunDirectory) -> str:
    split = "test" if "test/theta_speak" in metrics else "val"
    names = ["utterance_f1", "content_accuracy", "dst_update_f1", "dst_joint_goal_accuracy"]
    if f"{split}/utterance_f1" not in metrics:  # stream.words=false
        names = ["speak_f1", "dst_f1"]
    shown = [
        f"{name} {metrics[f'{split}/{name}']:.3f}" for name in names if f"{split}/{name}" in metrics
    ]
    return f"{split}: {', '.join(shown)}\nReport: {run.report}"
