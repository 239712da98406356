from __future__ import annotations

import sys

import pytest
import torch

from benchmarks import training
from proassist_lit.data.collate import collate
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind, compute_losses

ARGUMENTS = ["--shape", "tiny", "--device", "cpu", "--steps", "2", "--batch", "3",
             "--shortest", "40", "--longest", "120"]  # fmt: skip


def test_the_baselines_loss_and_gradients_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    model, chat = training.build("tiny", device=torch.device("cpu"), dtype=torch.float32)
    options = training.argparse.Namespace(
        batch=3, steps=1, shortest=60, longest=300, tokens=5, words=4, speak=0.2
    )
    rows = training.examples(chat, options)
    assert len({len(row.input_ids) for row in rows}) == 3
    found = []
    for ours in (True, False):
        if ours:
            config = ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN)
            loss = compute_losses(model, collate(rows), config).total
        else:
            reference = training.ReferenceModel(model)
            loss = reference(**training.reference_collate(rows))["loss"]
        found.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))])

    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_both_sides_learn_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["training", *ARGUMENTS, "--rounds", "1"])
    training.main()
    found = training.json.loads(capsys.readouterr().out)

    for name in ("first_loss", "last_loss"):
        assert found["ours"][name] == pytest.approx(found["baseline"][name], abs=1e-4)
    assert found["ours"]["first_loss"] != found["ours"]["last_loss"]
    assert found["baseline"]["padding_share"] > 0
    for side in training.SIDES:
        assert found[side]["tokens_per_s"] > 0
        assert found[side]["peak_gib"] > 0
    assert found["ratio"] == pytest.approx(
        found["ours"]["tokens_per_s"] / found["baseline"]["tokens_per_s"], abs=0.01
    )


def test_sides_that_do_not_learn_the_same_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, 1.01])

    def run(command: list[str], **_: object) -> object:
        answer = {"losses": [next(losses)]}
        return training.subprocess.CompletedProcess(command, 0, training.json.dumps(answer))

    monkeypatch.setattr(training.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["training", *ARGUMENTS, "--rounds", "1"])
    with pytest.raises(SystemExit, match=r"first losses are 1\.0 and 1\.01; the two sides"):
        training.main()


def test_memory_is_what_the_process_grew_by() -> None:
    memory = training.Memory(torch.device("cpu"))
    before = memory.growth()
    held = torch.ones(2**24)  # 64 MiB
    del held

    assert before < 2**24 < 0.95 * 2**26 < memory.growth() < 2**27
