from __future__ import annotations

import json
import re
import shutil
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from proassist_lit.build import Core
from proassist_lit.commands.trained import find_checkpoint, find_trained
from proassist_lit.config import (
    DataConfig,
    LoggerConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    StreamConfig,
)
from proassist_lit.config_schema import to_plain, write_config
from proassist_lit.data.sources.toy import ToyConfig
from proassist_lit.errors import CheckpointError, ConfigError, ProAssistError
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.lit import run as lit_run
from proassist_lit.lit.datamodule import ConversationDataModule
from proassist_lit.lit.module import AssistantModule
from proassist_lit.lit.run import train
from proassist_lit.model.config import TinyConfig
from proassist_lit.objectives import ObjectiveKind
from proassist_lit.optimizer_config import OptimizerConfig, Schedule
from proassist_lit.report.curves import read_curves
from proassist_lit.run_directory import RunDirectory
from proassist_lit.trainer_config import TrainerConfig
from proassist_lit.types import Batch
from tests.evaluation.test_answers import answered_frames
from tests.lit.resuming import curves
from tests.lit.wandb_command import inspect, offline_runs

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning and W&B: not tested here


def config(tmp_path: Path, *, resume: str = "none", steps: int = 4) -> RunConfig:
    return RunConfig(
        name="small",
        resume=resume,
        data=DataConfig(
            cache=str(tmp_path / "data"), toy=ToyConfig(num_train=1, num_val=1, num_test=1)
        ),
        model=ModelConfig(tiny=TinyConfig(hidden_size=32, num_layers=2, num_heads=2, mlp_size=32)),
        objective=ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN),
        stream=StreamConfig(max_new_tokens=4, max_dst_tokens=4),
        trainer=TrainerConfig(max_steps=steps, val_every_steps=2, log_every_steps=1),
        evaluation=EvaluationConfig(similarity="words", streams_on_validation=1),
        logger=LoggerConfig(),
    )


@pytest.fixture(autouse=True)
def quiet_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.mark.road
def test_run_leaves_everything_behind(tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "small" / "run"

    train(config(tmp_path), run)

    metrics = json.loads((run / "metrics.json").read_text())
    for split in ("val", "test"):
        for name in ("speak_f1", "utterance_precision", "utterance_recall", "utterance_f1",
                     "content_accuracy", "dst_update_f1", "dst_joint_goal_accuracy",
                     "theta_speak", "theta_dst"):  # fmt: skip
            assert f"{split}/{name}" in metrics
    for baseline in ("always_silent", "always_speak", "clock", "blind", "blind_zeros"):
        assert f"baseline/{baseline}/test/utterance_f1" in metrics
    assert metrics["similarity"]
    assert (tmp_path / "outputs" / "latest").resolve() == run.resolve()
    rows = json.loads(next(run.glob("streams/test_*.json")).read_text())
    assert {"frame_idx", "time_s", "speak_prob", "dst_prob", "speak", "dst", "text", "updates",
            "state", "ref_text", "ref_updates", "user_text", "context_len", "event"} <= set(
        rows[0]
    )  # fmt: skip
    assert "<html" in (run / "report.html").read_text()
    header = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss", "train/lr", "val/loss", "val_stream/utterance_f1",
            "test/utterance_f1"} <= set(header)  # fmt: skip
    losses = dict(read_curves(run / "metrics.csv")["val/loss"])
    assert metrics["best/val_loss"] == pytest.approx(min(losses.values()))
    folder = run / "dashboard"
    for name in ("utterances.csv", "state_updates.csv", "comparison.csv", "timelines/1.png",
                 "steps/1.png", "val/calibration.png", "test/precision_recall.csv"):  # fmt: skip
        assert (folder / name).stat().st_size > 0
    for name in ("best", "last"):
        state = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert state["global_step"] > 0


@pytest.mark.road
def test_interrupt_leaves_a_checkpoint_that_training_goes_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, step = tmp_path / "run", AssistantModule.training_step
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")

    def interrupted(self: AssistantModule, batch: object, batch_idx: int) -> torch.Tensor:
        if self.global_step == 3:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(AssistantModule, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config(tmp_path), run)

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    assert f"hydra.run.dir={run} resume=auto" in capsys.readouterr().err
    begun: list[int] = []

    def noted(self: AssistantModule, batch: object, batch_idx: int) -> torch.Tensor:
        begun.append(self.global_step)
        return step(self, batch, batch_idx)  # type: ignore[arg-type]

    monkeypatch.setattr(AssistantModule, "training_step", noted)
    train(config(tmp_path, resume="auto"), run)

    assert begun == [3]
    assert (run / "report.html").exists()
    steps = [row["step"] for row in curves(run) if "train/loss" in row]
    assert steps == ["0", "1", "2", "3"]  # the curves of the first part go on
    parts = [inspect(part) for part in offline_runs(run)]
    before = saved["callbacks"]["WandbIdentity"]
    assert [part["run_id"] for part in parts] == [before["id"]] * 2
    assert [part["exit_code"] for part in parts] == [1, 0]  # closed, both
    assert parts[1]["summary"]["timelines/1"]["path"].endswith(".png")
    again = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    assert again["WandbIdentity"]["id"] == before["id"]
    assert again["WandbIdentity"]["step"] > before["step"] > 0


@pytest.mark.road
def test_runs_and_checkpoints_may_lie_on_another_disk(tmp_path: Path) -> None:
    disk, run = tmp_path / "disk", tmp_path / "outputs/small/run"
    for name in ("runs/small", "weights"):
        (disk / name).mkdir(parents=True)
    (tmp_path / "outputs").symlink_to(disk / "runs")
    run.mkdir()
    (run / "checkpoints").symlink_to(disk / "weights")

    first = config(tmp_path, steps=1)
    write_config(first, run / "config.yaml")
    train(first, run)
    train(config(tmp_path, steps=1, resume="auto"), run)

    assert (tmp_path / "outputs/latest").resolve() == run.resolve()
    refused = replace(config(tmp_path), data=DataConfig(source="proassist", root=str(tmp_path)))
    notes = RunDirectory(run).read_notes()
    assert "duration" in notes
    for place in (tmp_path / "outputs/small/refused", run):
        with pytest.raises(ProAssistError):
            train(replace(refused, resume="auto"), place)
    assert (tmp_path / "outputs/latest").resolve() == run.resolve()  # they never began
    assert RunDirectory(run).read_notes() == notes
    last = run / "checkpoints/last.ckpt"
    assert (disk / "weights/last.ckpt").is_file()
    assert find_checkpoint(last, "last") == (run, last)
    assert find_trained(last).metrics["val/theta_speak"] > 0  # those of its run


@pytest.mark.road
def test_a_signal_while_the_report_is_written_loses_no_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)  # type: ignore[operator, misc]

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("proassist_lit.lit.run.write_report", stop)
        with pytest.raises(SystemExit, match=r"^143$"):
            train(config(tmp_path, steps=1), run)
    names = answered_frames(monkeypatch)
    train(config(tmp_path, steps=1, resume="auto"), run)

    assert names == []
    assert (run / "report.html").exists()
    assert not (run / "answers").exists()


@pytest.mark.road
def test_weights_that_go_on_keep_their_tokenizer_whatever_the_data_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file = tmp_path / "run", tmp_path / "run/tokenizer/tokenizer.json"
    tiny = TinyConfig(vocab_size=300, hidden_size=32, num_layers=2, num_heads=2, mlp_size=32)
    first = config(tmp_path, steps=1)
    first = replace(first, model=replace(first.model, tiny=tiny))
    train(first, run)
    before = file.read_bytes()

    toy = ToyConfig(num_train=1, num_val=1, num_test=1, seed=9)
    other = replace(first, resume="auto", data=replace(first.data, toy=toy))
    other = replace(other, trainer=replace(other.trainer, max_steps=2))
    with suppress(CheckpointError):  # of another epoch: refused, but nothing may have changed
        train(other, run)
    assert file.read_bytes() == before
    alone = shutil.copy(run / "checkpoints/last.ckpt", tmp_path)
    monkeypatch.chdir(tmp_path)
    for checkpoint in (str(alone), "last.ckpt"):
        with pytest.raises(CheckpointError, match=r"last\.ckpt: .*tokenizer is missing, and anot"):
            train(replace(other, resume=checkpoint), tmp_path / "branch")
    fresh = tmp_path / "fresh"
    train(replace(other, resume="none"), fresh)
    assert (fresh / "tokenizer/tokenizer.json").read_bytes() != before  # or nothing was shown


def test_resume_from_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.ckpt: there is no such checkpoint"):
        train(config(tmp_path, resume=str(tmp_path / "nowhere.ckpt")), tmp_path / "run")


def test_train_leaves_another_run_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(ConfigError, match=r"run: holds a run already.* resume=auto to go on"):
        train(config(tmp_path), run)
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "checkpoints", "last.ckpt"]


def test_config_of_a_run_is_plain_data(tmp_path: Path) -> None:
    assert to_plain(config(tmp_path))["objective"]["kind"] == "per_token"


@pytest.mark.road
def test_a_run_trains_with_what_its_searches_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, float, bool]] = []
    sizes: list[int] = []
    training_step = AssistantModule.training_step

    def batch_size(config: RunConfig, core: Core, run: RunDirectory, *, resumes: bool) -> RunConfig:
        asked.append(("batch size", config.data.batch_size, resumes))
        return replace(config, data=replace(config.data, batch_size=3))

    def lr(
        config: RunConfig, core: Core, datamodule: ConversationDataModule, run: RunDirectory,
        *, resumes: bool,
    ) -> RunConfig:  # fmt: skip
        # It is looked for with the batches that were found.
        asked.append(("lr", len(next(iter(datamodule.train_dataloader())).lengths), resumes))
        optimizer = replace(config.trainer.optimizer, lr=0.0123)
        return replace(config, trainer=replace(config.trainer, optimizer=optimizer))

    def step(self: AssistantModule, batch: Batch, batch_idx: int) -> torch.Tensor:
        sizes.append(len(batch.lengths))
        return training_step(self, batch, batch_idx)

    monkeypatch.setattr(lit_run, "with_found_batch_size", batch_size)
    monkeypatch.setattr(lit_run, "with_found_lr", lr)
    monkeypatch.setattr(AssistantModule, "training_step", step)
    for resume, steps in (("none", 2), ("auto", 3)):
        settings = config(tmp_path, resume=resume, steps=steps)
        optimizer = OptimizerConfig(warmup_steps=0, schedule=Schedule.CONSTANT)
        trainer = replace(settings.trainer, find_lr=True, find_batch_size=8, optimizer=optimizer)
        train(replace(settings, trainer=trainer), tmp_path / "run")

    begun = settings.data.batch_size
    assert begun != 3
    assert asked == [(what, size, resumes) for resumes in (False, True)
                     for what, size in (("batch size", begun), ("lr", 3))]  # fmt: skip
    assert sizes == [3, 3, 3]
    rows = [row for row in curves(tmp_path / "run") if "train/lr" in row]
    assert [float(row["train/lr"]) for row in rows] == pytest.approx([0.0123] * 3)
    report = (tmp_path / "run/report.html").read_text()
    for note in (r"batch size found\W+3\b", r"learning rate found\W+0\.0123\b"):
        assert re.search(note, re.sub(r"<[^>]*>", " ", report)), note
