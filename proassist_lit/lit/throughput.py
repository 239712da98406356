"""Logs how fast training goes, and in how much memory."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from torch import Tensor

from proassist_lit.lit.module import AssistantModule
from proassist_lit.model.arithmetic import StepArithmetic, peak_tflops
from proassist_lit.types import IGNORE_INDEX, Batch


@dataclass
class Throughput:
    """What went through since the last reading; knows no clock and no device.

    Attributes:
        arithmetic: operations of a step.
        num_tokens_per_img: K.
        peak_flops: operations a second that the devices can do; None if that is not known.
    """

    arithmetic: StepArithmetic
    num_tokens_per_img: int
    peak_flops: float | None = None
    _tokens: int = field(default=0, init=False)
    _places: int = field(default=0, init=False)  # tokens and padding
    _frames: int = field(default=0, init=False)
    _flops: float = field(default=0.0, init=False)
    _labels: Tensor | int = field(default=0, init=False)  # on the device until it is read

    def add(self, batch: Batch) -> None:
        """Count a batch, without waiting for its device."""
        self._tokens += sum(batch.lengths)
        self._places += batch.input_ids.numel()
        self._frames += len(batch.image_features) // self.num_tokens_per_img
        self._flops += self.arithmetic.of_batch(batch.lengths, 0)
        learnt = (batch.labels != IGNORE_INDEX).sum() + (batch.dst_labels != IGNORE_INDEX).sum()
        self._labels = self._labels + learnt

    def read(self, seconds: float) -> dict[str, float]:
        """What went through in ``seconds`` since the last reading; counting begins anew."""
        flops = self._flops + self.arithmetic.per_label * int(self._labels)
        values = {
            "tokens_per_s": self._tokens / seconds,
            "frames_per_s": self._frames / seconds,
            "padding_share": 1 - self._tokens / self._places if self._places else 0.0,
        }
        if self.peak_flops is not None:
            values["mfu"] = flops / seconds / self.peak_flops
        self._tokens = self._places = self._frames = self._labels = 0
        self._flops = 0.0
        return values


class ThroughputLogging(L.Callback):
    """Logs tokens and frames a second, padding share, MFU and peak memory under ``train/``.

    Time is from batch to batch, loading included and validation not. Rates are of this process.
    Memory is what tensors took at most on a GPU, in training alone: an evaluation holds more. On a
    CPU it is the most that the process ever held.

    Args:
        num_tokens_per_img: K.
        peak: 10^12 operations a second of one device; None for what is known of its name.
        every_steps: optimizer steps between readings, those at which losses are logged.
    """

    def __init__(self, *, num_tokens_per_img: int, peak: float | None, every_steps: int) -> None:
        self._num_tokens_per_img, self._peak = num_tokens_per_img, peak
        self._every_steps = every_steps
        self._throughput: Throughput | None = None
        self._seconds, self._since, self._step = 0.0, 0.0, 0
        self._is_stopped = False
        self._peak_memory = 0  # bytes, of training before the last validation

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count."""
        assert isinstance(pl_module, AssistantModule)
        device, peak = pl_module.device, self._peak
        if peak is None and device.type == "cuda":
            peak = peak_tflops(torch.cuda.get_device_name(device), str(trainer.precision))
        self._throughput = Throughput(
            StepArithmetic.of(pl_module.model),
            self._num_tokens_per_img,
            peak * 1e12 if peak is not None else None,
        )
        self._step = trainer.global_step
        _forget_peak_memory(device)
        self._peak_memory = 0
        self._seconds, self._since = 0.0, time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._seconds += time.perf_counter() - self._since
        self._is_stopped = True
        self._peak_memory = max(self._peak_memory, _peak_memory(pl_module.device))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Let the clock go on: streams are answered, and checkpoints written, at its end."""
        if self._is_stopped:
            self._since, self._is_stopped = time.perf_counter(), False
            _forget_peak_memory(pl_module.device)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count the batch; log where the losses are logged."""
        assert self._throughput is not None
        self._throughput.add(batch)
        has_stepped, self._step = trainer.global_step > self._step, trainer.global_step
        if not has_stepped or trainer.global_step % self._every_steps:
            return
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        now = time.perf_counter()
        values = self._throughput.read(self._seconds + now - self._since)
        self._seconds, self._since = 0.0, now
        peak = max(self._peak_memory, _peak_memory(pl_module.device))
        values["peak_memory_gib"] = peak / 2**30
        for name, value in values.items():
            pl_module.log(f"train/{name}", value, on_step=True, on_epoch=False)


def _peak_memory(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forget_peak_memory(device: torch.device) -> None:
    """Of a GPU; what a process held is kept by its system."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
