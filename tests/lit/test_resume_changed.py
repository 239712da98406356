"""Training that goes on with other settings: what follows them, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from proassist_lit.build import build_core, build_examples
from proassist_lit.config import RunConfig
from proassist_lit.errors import CheckpointError
from proassist_lit.lit.datamodule import ConversationDataModule
from proassist_lit.lit.module import AssistantModule
from proassist_lit.model.config import TrainMode
from proassist_lit.optimizer_config import Schedule
from proassist_lit.sequence.batching import EpochBatches
from proassist_lit.types import Batch
from tests.lit.resuming import Whole, config, curves, fit, same

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here


@pytest.fixture(autouse=True)
def quiet_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.mark.road
@pytest.mark.parametrize(
    ("accumulate", "steps"),
    [(1, 2), (1, 3), (2, 3), (4, 4), (4, 6)],  # 4: epochs of 4 steps
)
def test_an_ended_run_that_is_given_more_steps_goes_on_bit_for_bit(
    accumulate: int, steps: int, uninterrupted: Whole, tmp_path: Path
) -> None:
    whole, expected = uninterrupted(accumulate)
    data = whole.parent / "data"
    fit(config(data, accumulate=accumulate, steps=steps), tmp_path / "run")
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == steps
    assert saved["epoch"] == (steps // 4 if accumulate == 4 else 0)

    weights = fit(config(data, accumulate=accumulate), tmp_path / "run")

    assert same(weights, expected)
    assert curves(tmp_path / "run") == curves(whole)


@pytest.mark.road
@pytest.mark.parametrize("workers", [0, 2])
def test_an_ended_run_that_is_given_more_epochs_goes_on_bit_for_bit(
    workers: int, tmp_path: Path
) -> None:
    def epochs(number: int) -> RunConfig:
        settings = config(tmp_path / "data", accumulate=4, workers=workers)
        return replace(settings, trainer=replace(settings.trainer, max_steps=-1, max_epochs=number))

    expected = fit(epochs(2), tmp_path / "whole")
    fit(epochs(1), tmp_path / "run")
    metrics, before = (tmp_path / "run" / f"metrics{end}.json" for end in ("", "_before"))
    metrics.write_text("{}")
    fit(epochs(1), tmp_path / "run")
    assert metrics.exists()  # nothing was trained
    weights = fit(epochs(2), tmp_path / "run")
    assert before.exists()
    assert not metrics.exists()  # of a state that is no more

    assert len(curves(tmp_path / "run")) > 8
    assert same(weights, expected)
    assert curves(tmp_path / "run") == curves(tmp_path / "whole")


@pytest.mark.road
def test_a_longer_schedule_is_followed_from_where_it_is(tmp_path: Path) -> None:
    def falling(steps: int) -> RunConfig:
        settings = config(tmp_path / "data", steps=steps, schedule=Schedule.COSINE)
        optimizer = replace(settings.trainer.optimizer, warmup_steps=0)
        return replace(settings, trainer=replace(settings.trainer, optimizer=optimizer))

    def rates(folder: Path) -> list[str]:
        return [row["train/lr"] for row in curves(folder) if "train/lr" in row]

    fit(falling(5), tmp_path / "whole")
    fit(falling(2), tmp_path / "run")
    short = rates(tmp_path / "run")
    fit(falling(5), tmp_path / "run")

    want, got = rates(tmp_path / "whole"), rates(tmp_path / "run")
    assert got[:2] == short != want[:2]
    assert got[2:] == want[2:]
    assert len(got) == 5


@pytest.mark.road
def test_the_optimizer_is_set_as_the_run_that_goes_on_says(tmp_path: Path) -> None:
    def going(steps: int, **optimizer: float) -> RunConfig:
        settings = config(tmp_path / "data", steps=steps)
        changed = replace(settings.trainer.optimizer, warmup_steps=0, final_ratio=1.0, **optimizer)
        return replace(settings, trainer=replace(settings.trainer, optimizer=changed))

    seen: list[list[tuple[float, float, float]]] = []
    train = AssistantModule.training_step

    def step(self: AssistantModule, batch: Batch, batch_idx: int) -> Tensor:
        groups = self.trainer.optimizers[0].param_groups
        seen.append([(g["lr"], g["weight_decay"], g["betas"][1]) for g in groups])
        return train(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AssistantModule, "training_step", step)
        fit(going(2, lr=1e-3, weight_decay=0.1, beta2=0.98), tmp_path / "run")
        fit(going(4, lr=2e-3, weight_decay=0.2, beta2=0.95), tmp_path / "run")

    assert seen[:2] == [[(1e-3, 0.1, 0.98), (1e-3, 0.0, 0.98)]] * 2
    assert seen[2:] == [[(2e-3, 0.2, 0.95), (2e-3, 0.0, 0.95)]] * 2


@pytest.mark.road
def test_a_place_in_an_epoch_of_other_steps_is_refused(tmp_path: Path) -> None:
    fit(config(tmp_path / "data", steps=2), tmp_path / "run")
    before = (tmp_path / "run/checkpoints/last.ckpt").read_bytes()
    for changed in ({"batch_size": 2}, {"accumulate": 2}, {"max_tokens": 2000}):
        with pytest.raises(
            CheckpointError,
            match=r"in the middle of an epoch with steps of seed 1, .*, batch_size 1, batches 1; "
            r"here they would be of seed 1, .*(batch_size 2|batches 2|max_tokens 2000)",
        ):
            fit(config(tmp_path / "data", steps=4, **changed), tmp_path / "run")  # type: ignore[arg-type]
    assert (tmp_path / "run/checkpoints/last.ckpt").read_bytes() == before


@pytest.mark.road
def test_an_optimizer_of_other_tensors_is_refused(tmp_path: Path) -> None:
    settings = config(tmp_path / "data", steps=2)
    fit(settings, tmp_path / "run")
    with pytest.raises(
        CheckpointError,
        match=r"optimizer trains \d+ \+ \d+ tensors, this run's \d \+ \d; give model\.train and",
    ):
        fit(config(tmp_path / "data", steps=4, train=TrainMode.FROZEN), tmp_path / "run")
    fit(config(tmp_path / "data", steps=4), tmp_path / "run")


@pytest.mark.road
def test_a_whole_epoch_is_followed_by_one_of_other_steps(tmp_path: Path) -> None:
    first = config(tmp_path / "data", steps=1000)
    first = replace(first, trainer=replace(first.trainer, max_epochs=1))
    fit(first, tmp_path / "run")
    more = replace(first, data=replace(first.data, batch_size=2))
    more = replace(more, trainer=replace(more.trainer, max_epochs=2))
    seen: list[int] = []
    train = AssistantModule.training_step

    def step(self: AssistantModule, batch: Batch, batch_idx: int) -> Tensor:
        seen.append(len(batch.lengths))
        return train(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AssistantModule, "training_step", step)
        fit(more, tmp_path / "run")
    core = build_core(more)
    assert sum(seen) == len(build_examples(more, core, "train"))
    assert max(seen) == 2


@pytest.mark.road
def test_a_checkpoint_that_does_not_say_its_steps_is_refused(tmp_path: Path) -> None:
    settings = config(tmp_path / "data", steps=2)
    fit(settings, tmp_path / "run")
    path = tmp_path / "run/checkpoints/last.ckpt"
    saved = torch.load(path, weights_only=True)
    del saved["ConversationDataModule"]["steps"]
    torch.save(saved, path)
    with pytest.raises(CheckpointError, match=r"does not say steps of .* earlier version"):
        fit(replace(settings, trainer=replace(settings.trainer, max_steps=4)), tmp_path / "run")


def test_a_place_in_an_epoch_of_an_earlier_order_is_refused() -> None:
    """Where the smaller batch of an epoch was shuffled among the others."""
    batches = partial(EpochBatches, batch_size=4)
    examples: Any = SimpleNamespace(lengths=[5] * 10)
    datamodule = ConversationDataModule(
        {"train": examples}, {}, batches=batches, num_workers=0, seed=1
    )
    datamodule.trainer = SimpleNamespace(world_size=1)  # type: ignore[assignment]
    steps = batches(examples.lengths, seed=1).steps
    state = {"epoch": 2, "num_batches": 1, "of": 3, "steps": steps}
    datamodule.load_state_dict(state)
    earlier = {name: value for name, value in steps.items() if name != "short_batch"}
    with pytest.raises(
        CheckpointError, match=r"batches 1; here .*, batches 1, short_batch last, .*the version of"
    ):
        datamodule.load_state_dict({**state, "steps": earlier})
    datamodule.load_state_dict({**state, "steps": earlier, "num_batches": 3})
