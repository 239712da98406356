"""Training: packed rows and labelled positions against Hugging Face's Trainer.

The baseline is how ProAssist is trained: ``transformers.Trainer``, batches padded on the right as
they come, logits of the whole vocabulary at every position, its loss. Both sides learn the same
conversations in the same batches, from the same weights with the same optimizer, and must have the
same loss at the first step. Each runs in a process of its own, in turn.

    python -m benchmarks.training
    python -m benchmarks.training --quick
    python -m benchmarks.training --shape 1b
    python -m benchmarks.training --shape 8b

On a GPU weights are bfloat16 under autocast. The largest shape trains low-rank additions with
checkpointed layers, on both sides: nothing else fits 80 GB.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler, SequentialSampler

from benchmarks.shapes import add_arguments, build, features, machine, stream, synchronize
from proassist_lit.config import OptimizerConfig
from proassist_lit.data.collate import collate, pack
from proassist_lit.lit.module import AssistantModule
from proassist_lit.model.arithmetic import StepArithmetic, peak_tflops
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import LoraConfig
from proassist_lit.model.lora import add_lora
from proassist_lit.model.training_layers import GradientCheckpointing, prepare_layers
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.types import IGNORE_INDEX, Example

SIDES = ("baseline", "ours")
LEARNING_RATE, WEIGHT_DECAY, CLIP = 1e-4, 0.01, 1.0

ON_CPU: dict[str, Any] = {
    "dtype": "float32", "batch": 4, "steps": 3, "warmup": 1, "rounds": 2, "shortest": 256,
    "longest": 1024, "micro_tokens": 1024, "checkpointing": GradientCheckpointing.SELECTIVE,
    "lora": 0,
}  # fmt: skip
ON_GPU: dict[str, Any] = {
    "dtype": "bfloat16", "batch": 4, "steps": 10, "warmup": 3, "rounds": 1, "shortest": 512,
    "longest": 4096, "micro_tokens": 8192, "checkpointing": GradientCheckpointing.NONE,
    "lora": 0,
}  # fmt: skip
TOO_LARGE_TO_TRAIN_WHOLE: dict[str, Any] = {
    "8b": {"checkpointing": GradientCheckpointing.FULL, "lora": 128, "steps": 8, "warmup": 2},
}
"""What stands for an option that is not given."""

OFFLINE = {"HF_HUB_OFFLINE": "1", "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
"""Environment of both sides; batches of any length otherwise leave holes in a GPU's memory."""


def examples(chat: Chat, options: argparse.Namespace) -> list[Example]:
    """Conversations of drawn lengths, the same in every process; short ones as often as long ones.

    As many are of 256 to 512 tokens as of 512 to 1024, say.
    """
    rng, out = random.Random(0), []
    per_frame = options.tokens + options.speak * (options.words + 2)
    ratio = options.longest / options.shortest
    for number in range(options.batch * options.steps):
        wanted = options.shortest * ratio ** rng.random()
        num_frames = max(int(wanted / per_frame), 2)
        spoken = [frame for frame in range(num_frames) if rng.random() < options.speak]
        made = ExampleSet(
            [stream(number, num_frames, spoken or [0], options.words)],
            lambda c, n=number: features(n, c.num_frames, options.tokens),
            chat, num_tokens_per_img=options.tokens, max_seq_len=options.longest, rho=1.0,
            turn_frames=None, seed=0,
        )  # fmt: skip
        out.append(made[0, 0])
    return out


# -- the baseline -----------------------------------------------------------------------------


def reference_collate(rows: Sequence[Example]) -> dict[str, Tensor]:
    """As ProAssist's collator, with its fault mended that loses the labels of shorter rows.

    Labels are what comes next; the silent frames are among them, as the model takes them out.
    """

    def pad(name: str, value: int) -> Tensor:
        return pad_sequence([getattr(r, name) for r in rows], batch_first=True, padding_value=value)

    labels = F.pad(pad("labels", IGNORE_INDEX)[:, 1:], (0, 1), value=IGNORE_INDEX)
    return {
        "input_ids": pad("input_ids", 0),
        "image_mask": pad("image_mask", 0),
        "image_features": torch.cat([row.image_features for row in rows]),
        "labels": labels,
        "pos_frame_mask": pad("pos_frame_mask", 0),
        "neg_frame_mask": pad("neg_frame_mask", 0),
    }


class ReferenceModel(nn.Module):
    """ProAssist's forward: all logits, all hidden states, cross-entropy and two binary ones."""

    def __init__(self, model: AssistantModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        image_mask: Tensor,
        image_features: Tensor,
        labels: Tensor,
        pos_frame_mask: Tensor,
        neg_frame_mask: Tensor,
    ) -> dict[str, Tensor]:
        """The loss of a padded batch; the head says P(speak), its targets are turned with it."""
        embeds = self.model.embed(input_ids, image_mask, image_features)
        out = self.model.lm(inputs_embeds=embeds, use_cache=False, output_hidden_states=True)
        logits = out.logits.float()  # (B, T, V)
        labels = labels.masked_fill(neg_frame_mask, IGNORE_INDEX)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX)
        speak = self.model.speak_head(out.hidden_states[-1]).float()  # (B, T)
        terms = [
            F.binary_cross_entropy_with_logits(speak[mask], torch.full_like(speak[mask], target))
            for mask, target in ((neg_frame_mask, 0.0), (pos_frame_mask, 1.0))
        ]
        return {"loss": loss + sum(terms) / 2}


class Clock(transformers.TrainerCallback):
    """When each step of the Trainer was over."""

    def __init__(self, over: Callable[[], None]) -> None:
        self._over = over

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note it."""
        self._over()


class OrderedTrainer(transformers.Trainer):  # type: ignore[misc]
    """Takes the conversations as they come, so that both sides have the same batches."""

    losses: list[float]

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Note the loss."""
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self.losses.append(float(loss.detach()))
        return loss


def train_baseline(
    model: AssistantModel,
    rows: list[Example],
    options: argparse.Namespace,
    over: Callable[[], None],
) -> list[float]:
    """Loss of every step; where ours computes whole layers twice, Hugging Face's way to do so."""
    if options.checkpointing == GradientCheckpointing.FULL:
        model.lm.gradient_checkpointing_enable({"use_reentrant": False})
    with tempfile.TemporaryDirectory() as folder:
        trainer = OrderedTrainer(
            model=ReferenceModel(model),
            args=transformers.TrainingArguments(
                output_dir=folder, per_device_train_batch_size=options.batch,
                max_steps=options.steps, learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY,
                max_grad_norm=CLIP, lr_scheduler_type="constant", optim="adamw_torch",
                report_to=[], disable_tqdm=True, save_strategy="no", logging_strategy="no",
                remove_unused_columns=False, use_cpu=options.device == "cpu",
                dataloader_pin_memory=options.device != "cpu", bf16=uses_autocast(options),
            ),
            train_dataset=rows, data_collator=reference_collate, callbacks=[Clock(over)],
        )  # fmt: skip
        trainer.losses = []
        trainer.train()
    return trainer.losses


# -- ours -------------------------------------------------------------------------------------


class Watch(L.Callback):
    """When each step was over, and its loss."""

    def __init__(self, over: Callable[[], None]) -> None:
        self._over, self.losses = over, list[float]()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Note them."""
        self.losses.append(float(outputs["loss"]))
        self._over()


def train_ours(
    model: AssistantModel,
    rows: list[Example],
    options: argparse.Namespace,
    over: Callable[[], None],
) -> list[float]:
    """Loss of every step."""
    prepare_layers(model.lm, GradientCheckpointing(options.checkpointing), compiles=options.compile)
    module = AssistantModule(
        model,
        ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN),
        OptimizerConfig(
            lr=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            beta2=0.999,
            warmup_steps=0,
            final_ratio=1.0,
        ),
        num_steps=options.steps,
        micro_tokens=options.micro_tokens,
        fused=True,
    )
    watch = Watch(over)
    trainer = L.Trainer(
        accelerator="cpu" if options.device == "cpu" else "gpu", devices=1,
        precision="bf16-mixed" if uses_autocast(options) else "32-true",
        max_steps=options.steps, gradient_clip_val=CLIP, logger=False, callbacks=[watch],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module.train(), DataLoader(
        rows, batch_size=options.batch, collate_fn=collate if options.padded else pack,  # type: ignore[arg-type]
        pin_memory=options.device != "cpu",
    ))  # fmt: skip
    return watch.losses


def uses_autocast(options: argparse.Namespace) -> bool:
    """Whether float32 is kept for what needs it: peft makes additions of float32."""
    return options.device != "cpu" and options.dtype == "bfloat16"


# -- measuring --------------------------------------------------------------------------------


class Memory:
    """How far the memory of this process, or of its GPU, grows from now on."""

    def __init__(self, device: torch.device) -> None:
        gc.collect()
        self._device, self._start = device, 0
        if device.type == "cuda":
            torch.cuda.empty_cache()  # of what building the model took
            torch.cuda.reset_peak_memory_stats(device)
            self._start = torch.cuda.memory_allocated(device)
        else:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak
            self._start = self._status("VmRSS")

    @property
    def peak(self) -> int:
        """Bytes at most, with what was there at the start."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return self._status("VmHWM")

    def growth(self) -> int:
        """Bytes of the peak beyond the start."""
        return self.peak - self._start

    @staticmethod
    def _status(name: str) -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def run_side(options: argparse.Namespace) -> dict[str, Any]:
    """Train one side in this process; the first steps warm up and are not timed."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    device = torch.device(options.device)
    model, chat = build(options.shape, device=device, dtype=getattr(torch, options.dtype))
    model.requires_grad_(True)
    model.lm.requires_grad_(not options.frozen)
    if options.lora:
        add_lora(model.lm, LoraConfig(rank=options.lora, alpha=2 * options.lora, dropout=0.0))
    model.train()
    rows = examples(chat, options)
    ends: list[tuple[float, float]] = []

    def over() -> None:
        synchronize(device)
        ends.append((time.perf_counter(), time.process_time()))

    arithmetic = StepArithmetic.of(model)
    memory = Memory(device)
    train = train_baseline if options.side == "baseline" else train_ours
    losses = train(model, rows, options, over)
    lengths = [len(row.input_ids) for row in rows]
    timed = rows[options.warmup * options.batch :]
    return {
        "losses": losses,
        "seconds": ends[-1][0] - ends[options.warmup - 1][0],
        # Tells more where others use the machine as well.
        "cpu_seconds": ends[-1][1] - ends[options.warmup - 1][1],
        "tokens": sum(len(row.input_ids) for row in timed),
        "flops": sum(
            arithmetic.of_batch([len(r.input_ids)], int((r.labels != IGNORE_INDEX).sum()))
            for r in timed
        ),
        "peak_bytes": memory.peak if device.type == "cuda" else memory.growth(),
        "model_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "padding_share": 1 - sum(lengths) / sum(
            options.batch * max(lengths[i : i + options.batch])
            for i in range(0, len(lengths), options.batch)
        ),
        "labelled_share": sum(int((r.labels != IGNORE_INDEX).sum()) for r in rows) / sum(lengths),
        "machine": machine(device),
    }  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both sides, in turn, each time in a process of its own."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(options.rounds):
        for side in SIDES:
            command = [sys.executable, "-m", "benchmarks.training", *sys.argv[1:], "--side", side]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True, env=OFFLINE | os.environ
            )
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
    baseline, ours = (found[side][0] for side in SIDES)
    difference = abs(baseline["losses"][0] - ours["losses"][0])
    room = 1e-4 if options.dtype == "float32" else 5e-2
    if difference > room:
        raise SystemExit(
            f"benchmarks.training: the first losses are {baseline['losses'][0]} and "
            f"{ours['losses'][0]}; the two sides do not learn the same."
        )

    peak = peak_tflops(baseline["machine"]["device"], "bf16" if options.dtype == "bfloat16" else "")

    def summary(side: str) -> dict[str, Any]:
        runs = found[side]

        def rate(clock: str) -> float:
            return round(sum(r["tokens"] for r in runs) / sum(r[clock] for r in runs), 1)

        flops_per_s = sum(r["flops"] for r in runs) / sum(r["seconds"] for r in runs)
        return {
            "tokens_per_s": rate("seconds"),
            "mfu": round(flops_per_s / peak / 1e12, 4) if peak is not None else None,
            "tokens_per_cpu_s": rate("cpu_seconds"),
            "tokens_per_s_of_runs": [round(r["tokens"] / r["seconds"], 1) for r in runs],
            "peak_gib": round(max(r["peak_bytes"] for r in runs) / 2**30, 3),
            "model_gib": round(runs[0]["model_bytes"] / 2**30, 3),
            "first_loss": runs[0]["losses"][0],
            "last_loss": runs[0]["losses"][-1],
        }  # fmt: skip

    theirs, mine = summary("baseline"), summary("ours")
    return {
        "benchmark": "training",
        "ratio": round(mine["tokens_per_s"] / theirs["tokens_per_s"], 2),
        "cpu_ratio": round(mine["tokens_per_cpu_s"] / theirs["tokens_per_cpu_s"], 2),
        "memory_ratio": round(mine["peak_gib"] / theirs["peak_gib"], 3),
        "baseline": theirs | {"padding_share": round(baseline["padding_share"], 3)},
        "ours": mine | {"padding_share": round(ours["padding_share"] * options.padded, 3)},
        "labelled_share": round(baseline["labelled_share"], 3),
        "settings": {
            name: getattr(options, name)
            for name in ("shape", "dtype", "batch", "steps", "warmup", "shortest", "longest",
                         "tokens", "speak", "words", "micro_tokens", "checkpointing", "compile",
                         "frozen", "lora", "rounds")
        },
        "peak_tflops": peak,
        "machine": baseline["machine"],
    }  # fmt: skip


def main() -> None:
    """Measure as asked and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add_arguments(parser)
    parser.set_defaults(tokens=5, dtype=None)
    flag = partial(parser.add_argument, action="store_true")
    integer = partial(parser.add_argument, type=int)
    integer("--batch", help="conversations per step")
    integer("--steps", help="of training")
    integer("--warmup", help="of them, that are not timed")
    integer("--rounds", help="processes of each side, in turn")
    integer("--shortest", help="tokens of a conversation")
    integer("--longest", help="tokens of a conversation")
    integer("--micro-tokens", help="of ours, that go through at a time")
    integer("--lora", help="rank of additions that are trained instead of the backbone; 0: none")
    parser.add_argument("--speak", type=float, default=0.06, help="share of frames spoken at")
    parser.add_argument(
        "--checkpointing", choices=list(GradientCheckpointing), help="of ours; full: of both sides"
    )
    flag("--compile", help="ours")
    flag("--padded", help="ours pads as well, to see what packing brings")
    flag("--frozen", help="the backbone is not trained, on either side")
    parser.add_argument("--side", choices=SIDES, help="this one only, in this process")
    options = fill_in(parser.parse_args())
    print(json.dumps(run_side(options) if options.side else measure(options)))


def fill_in(options: argparse.Namespace) -> argparse.Namespace:
    """Set what was not given as suits the device and the shape."""
    if options.quick:
        options.shape, options.rounds = "tiny", 1
    usual = ON_CPU if options.device == "cpu" else ON_GPU
    for name, value in (usual | TOO_LARGE_TO_TRAIN_WHOLE.get(options.shape, {})).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if not 1 <= options.warmup < options.steps:
        raise SystemExit(
            f"benchmarks.training: --warmup is {options.warmup} of {options.steps} steps; leave "
            "at least one before and one after it."
        )
    return options


if __name__ == "__main__":
    main()
