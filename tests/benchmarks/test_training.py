from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from benchmarks.shapes import build
from benchmarks.training import __main__ as training
from benchmarks.training import comparison
from benchmarks.training.baseline import ReferenceModel, reference_collate
from benchmarks.training.conversations import examples
from benchmarks.training.memory import Memory
from benchmarks.training.options import SIDES, uses_autocast
from proassist_lit.data.collate import collate
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind, compute_losses

ARGUMENTS = ["--shape", "tiny", "--device", "cpu", "--steps", "2", "--batch", "3",
             "--shortest", "40", "--longest", "120"]  # fmt: skip


def test_the_baselines_loss_and_gradients_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    model, chat = build("tiny", device=torch.device("cpu"), dtype=torch.float32)
    options = argparse.Namespace(
        batch=3, steps=1, shortest=60, longest=300, tokens=5, words=4, speak=0.2
    )
    rows = examples(chat, options)
    assert len({len(row.input_ids) for row in rows}) == 3
    found = []
    for ours in (True, False):
        if ours:
            config = ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN)
            loss = compute_losses(model, collate(rows), config).total
        else:
            reference = ReferenceModel(model)
            loss = reference(**reference_collate(rows))["loss"]
        found.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))])

    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_both_sides_learn_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["training", *ARGUMENTS, "--rounds", "1"])
    training.main()
    found = json.loads(capsys.readouterr().out)

    for name in ("first_loss", "last_loss"):
        assert found["ours"][name] == pytest.approx(found["baseline"][name], abs=1e-4)
    assert found["ours"]["first_loss"] != found["ours"]["last_loss"]
    assert found["baseline"]["padding_share"] > 0
    for side in SIDES:
        assert found[side]["tokens_per_s"] > 0
        (seconds,) = found[side]["seconds_of_steps"]
        assert len(seconds) == 1
        assert seconds[0] > 0
        assert found[side]["peak_gib"] > 0
    assert found["ratio"] == pytest.approx(
        found["ours"]["tokens_per_s"] / found["baseline"]["tokens_per_s"], abs=0.01
    )


def test_sides_that_do_not_learn_the_same_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, 1.01])

    def run(command: list[str], **_: object) -> object:
        answer = {"losses": [next(losses)]}
        return subprocess.CompletedProcess(command, 0, json.dumps(answer))

    monkeypatch.setattr(comparison.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["training", *ARGUMENTS, "--rounds", "1"])
    with pytest.raises(SystemExit, match=r"first losses are 1\.0 and 1\.01; the two sides"):
        training.main()


def test_memory_is_what_the_process_grew_by() -> None:
    memory = Memory(torch.device("cpu"))
    before = memory.growth()
    held = torch.ones(2**24)  # 64 MiB
    del held

    assert before < 2**24 < 0.95 * 2**26 < memory.growth() < 2**27


def filled(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> argparse.Namespace:
    asked = list[argparse.Namespace]()
    monkeypatch.setattr(training, "measure", lambda options: asked.append(options) or {})
    monkeypatch.setattr(sys, "argv", ["training", *arguments])
    training.main()
    return asked[0]


def test_options_suit_the_device_and_the_shape_unless_they_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = filled(monkeypatch, "--quick", "--device", "cpu")
    assert (small.shape, small.dtype, small.lora, small.rounds) == ("tiny", "float32", 0, 1)
    assert small.workers == 0
    large = filled(monkeypatch, "--shape", "1b", "--device", "cuda")
    assert (large.dtype, large.lora, large.checkpointing) == ("bfloat16", 0, "none")
    assert (large.baseline_checkpointing, large.workers) == ("none", 2)
    assert (large.micro_tokens, large.no_fused) == (8192, False)
    largest = filled(monkeypatch, "--shape", "8b", "--device", "cuda", "--lora", "16")
    assert (largest.dtype, largest.lora, largest.checkpointing) == ("bfloat16", 16, "full")
    assert largest.micro_tokens == 16384
    ours_alone = filled(
        monkeypatch, "--shape", "8b", "--device", "cuda", "--checkpointing", "selective"
    )
    assert (ours_alone.checkpointing, ours_alone.baseline_checkpointing) == ("selective", "full")
    assert uses_autocast(largest)
    assert not uses_autocast(small)


def test_a_benchmark_without_a_timed_step_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"--warmup is 2 of 2 steps; leave at least one"):
        filled(monkeypatch, *ARGUMENTS, "--warmup", "2")


@pytest.mark.parametrize("arguments", [(), ("--no-fused",)])
def test_ours_asks_for_ligers_kernels_unless_told_not_to(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = list[Any]()
    monkeypatch.setattr("proassist_lit.lit.module.fuse", asked.append)
    monkeypatch.setattr(sys, "argv", ["training", *ARGUMENTS, "--side", "ours", *arguments])
    training.main()

    assert len(asked) == (0 if arguments else 1)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found["machine"]) >= {"transformers", "liger"}


@pytest.mark.road
def test_it_runs_without_hydra_and_data_sets() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys("
        "('hydra', 'omegaconf', 'wandb', 'av', 'datasets', 'plotly')));"  # as if not installed
        "import benchmarks.training.__main__ as main; print(main.measure.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stdout.splitlines()[-1:] == ["measure"], done.stderr
