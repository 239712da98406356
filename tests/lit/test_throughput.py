from __future__ import annotations

import csv
import resource
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from proassist_lit.data.collate import collate, pack
from proassist_lit.lit.module import AssistantModule
from proassist_lit.lit.throughput import Throughput, ThroughputLogging, _peak_memory
from proassist_lit.model.arithmetic import StepArithmetic
from proassist_lit.types import IGNORE_INDEX, Example

ARITHMETIC = StepArithmetic(per_token=1000.0, per_label=100.0, per_pair=1.0)


def example(num_tokens: int, num_images: int, num_labels: int) -> Example:
    none = torch.zeros(num_tokens, dtype=torch.bool)
    image_mask = torch.arange(num_tokens) < num_images
    labels = torch.full((num_tokens,), IGNORE_INDEX)
    labels[num_tokens - num_labels :] = 1
    return Example(
        input_ids=torch.ones(num_tokens, dtype=torch.int64), image_mask=image_mask,
        image_features=torch.zeros(num_images, 2), labels=labels,
        dst_labels=torch.full_like(labels, IGNORE_INDEX), pos_frame_mask=none, neg_frame_mask=none,
        dst_pos_frame_mask=none, dst_neg_frame_mask=none, speak_targets=none.float(),
        dst_targets=none.float(),
    )  # fmt: skip


EXAMPLES = [example(10, 4, 3), example(6, 2, 1)]


def test_padded_rows_are_counted_by_hand() -> None:
    throughput = Throughput(ARITHMETIC, 2, peak_flops=1e6)
    throughput.add(collate(EXAMPLES))

    found = throughput.read(2.0)

    flops = 16 * 1000 + 4 * 100 + (10 * 11 + 6 * 7) / 2
    assert found == {
        "tokens_per_s": 8.0,
        "frames_per_s": 1.5,
        "padding_share": pytest.approx(4 / 20),
        "mfu": pytest.approx(flops / 2 / 1e6),
    }


def test_packed_rows_have_no_padding_and_the_same_arithmetic() -> None:
    readings = []
    for make in (collate, pack):
        throughput = Throughput(ARITHMETIC, 2, peak_flops=1e6)
        throughput.add(make(EXAMPLES))
        throughput.add(make(EXAMPLES[:1]))
        readings.append(throughput.read(1.0))
    padded, packed = readings

    assert packed["padding_share"] == 0.0
    assert padded["padding_share"] == pytest.approx(4 / 30)
    for name in ("tokens_per_s", "frames_per_s", "mfu"):
        assert packed[name] == padded[name]


def test_counting_begins_anew_after_a_reading_and_unknown_peaks_leave_mfu_out() -> None:
    throughput = Throughput(ARITHMETIC, 1)
    throughput.add(pack(EXAMPLES))
    throughput.read(1.0)
    throughput.add(pack(EXAMPLES[1:]))

    assert throughput.read(1.0) == {"tokens_per_s": 6.0, "frames_per_s": 2.0, "padding_share": 0.0}
    assert throughput.read(1.0)["tokens_per_s"] == 0.0


def test_peak_memory_of_a_cpu_is_the_most_that_the_process_held() -> None:
    before = _peak_memory(torch.device("cpu"))
    held = torch.ones(before // 8 + 2**24)  # more than was ever free

    grown = _peak_memory(torch.device("cpu"))

    assert grown >= before
    assert grown == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    assert grown > held.numel() * 4


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_is_from_batch_to_batch_without_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, logged = Clock(), list[dict[str, float]]()
    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(StepArithmetic, "of", lambda model: ARITHMETIC)
    module = AssistantModule.__new__(AssistantModule)
    nn.Module.__init__(module)
    module.model = nn.Identity()
    module.__dict__["_device"] = torch.device("cpu")
    monkeypatch.setattr(
        AssistantModule, "log",
        lambda self, name, value, **_: logged[-1].__setitem__(name, value),
    )  # fmt: skip
    trainer: Any = SimpleNamespace(global_step=0, precision="32-true")
    callback = ThroughputLogging(num_tokens_per_img=1, peak=None, every_steps=2)
    batch = pack(EXAMPLES)
    callback.on_train_start(trainer, module)
    for step, (seconds, is_step) in enumerate([(1, True), (2, False), (3, True), (4, True)]):
        logged.append({})
        callback.on_train_batch_start(trainer, module, batch, step)
        clock.now += seconds
        trainer.global_step += is_step
        callback.on_train_batch_end(trainer, module, None, batch, step)
        callback.on_validation_start(trainer, module)
        clock.now += 100  # streams are answered

    assert [bool(values) for values in logged] == [False, False, True, False]
    assert logged[2]["train/tokens_per_s"] == 3 * 16 / (1 + 2 + 3)
    assert "train/mfu" not in logged[2]
    assert logged[2]["train/peak_memory_gib"] > 0.05


def test_peak_memory_of_a_gpu_is_that_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"peak": 3 * 2**30}  # of a search before training
    for name, fake in {
        "max_memory_allocated": lambda device: held["peak"],
        "reset_peak_memory_stats": lambda device: held.update(peak=0),
        "get_device_name": lambda device: "a GPU",
        "synchronize": lambda device: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(StepArithmetic, "of", lambda model: ARITHMETIC)
    logged = dict[str, float]()
    monkeypatch.setattr(
        AssistantModule, "log", lambda self, name, value, **_: logged.__setitem__(name, value)
    )
    module = AssistantModule.__new__(AssistantModule)
    nn.Module.__init__(module)
    module.model = nn.Identity()
    module.__dict__["_device"] = torch.device("cuda", 0)
    trainer: Any = SimpleNamespace(global_step=0, precision="32-true")
    callback = ThroughputLogging(num_tokens_per_img=1, peak=None, every_steps=1)
    batch = pack(EXAMPLES)

    def peak_of_step(num_gib: float) -> float:
        callback.on_train_batch_start(trainer, module, batch, 0)
        held["peak"] = max(held["peak"], int(num_gib * 2**30))
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, module, None, batch, 0)
        return logged["train/peak_memory_gib"]

    callback.on_train_start(trainer, module)
    assert [peak_of_step(2.0), peak_of_step(1.0)] == [2.0, 2.0]
    callback.on_validation_start(trainer, module)
    held["peak"] = 5 * 2**30  # streams are answered
    assert peak_of_step(1.5) == 2.0
    assert peak_of_step(2.5) == 2.5


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here
def test_a_run_logs_its_throughput(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from proassist_lit.lit.run import train
    from tests.lit.test_run import config

    monkeypatch.setenv("WANDB_MODE", "disabled")
    small = config(tmp_path)
    small = replace(small, trainer=replace(small.trainer, peak_tflops=0.1, log_every_steps=2))
    train(small, tmp_path / "run")

    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    names = ("tokens_per_s", "frames_per_s", "padding_share", "mfu", "peak_memory_gib")
    for name in names:
        assert [row["step"] for row in rows if row[f"train/{name}"]] == ["1", "3"]
