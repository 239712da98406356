"""The average of the weights is what counts outside training, and training does not see it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from proassist_lit.config import RunConfig
from proassist_lit.errors import ConfigError
from proassist_lit.lit import sharded_strategy
from proassist_lit.lit.callbacks import StreamingEvaluation
from proassist_lit.lit.module import AssistantModule
from proassist_lit.lit.sharded_strategy import ShardedStrategy
from proassist_lit.lit.weight_average import WeightAverage, weights_of_training
from proassist_lit.objectives import ObjectiveConfig
from proassist_lit.optimizer_config import OptimizerConfig
from proassist_lit.trainer_config import TrainerConfig
from proassist_lit.types import Batch
from tests.fakes import tiny_model
from tests.lit import resuming
from tests.lit.resuming import curves, fit, stop_at

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here


class Tied(nn.Module):
    """One weight by two names, and one that is not trained."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.first, self.frozen = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.second = self.first
        self.frozen.requires_grad_(False)
        self.to(dtype)
        self.set(1.0)

    def set(self, value: float) -> None:
        nn.init.constant_(self.first.weight, value)

    @property
    def value(self) -> float:
        return float(self.first.weight)


class Loop:
    """Trains as a Trainer does: each step sets the weight."""

    def __init__(self, decay: float = 0.9, model: Tied | None = None) -> None:
        self.average, self.model = WeightAverage(decay), model or Tied()
        self.trainer: Any = SimpleNamespace(global_step=0, state=SimpleNamespace(fn="fit"))

    def begin(self) -> Loop:
        self.average.on_train_start(self.trainer, cast(Any, self.model))
        return self

    def step(self, value: float) -> None:
        self.model.set(value)
        self.trainer.global_step += 1
        self.batch()

    def batch(self) -> None:
        self.average.on_train_batch_end(self.trainer, cast(Any, self.model), None, None, 0)

    def hook(self, name: str) -> float:
        """The weight after a hook."""
        getattr(self.average, name)(self.trainer, self.model)
        return self.model.value

    def save(self) -> dict[str, Any]:
        saved = {"state_dict": self.model.state_dict(), "average": self.average.state_dict()}
        self.average.on_save_checkpoint(self.trainer, cast(Any, self.model), saved)
        return saved


def test_average_follows_the_formula_and_gives_way_to_training() -> None:
    loop, expected = Loop(decay=0.25).begin(), 1.0
    for n, value in enumerate((2.0, 4.0, 3.0), start=1):
        loop.step(value)
        loop.batch()  # of an update that is not finished: nothing moves
        decay = min(0.25, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value

    assert loop.hook("on_validation_start") == pytest.approx(expected)
    assert loop.hook("on_validation_end") == 3.0
    assert loop.hook("on_train_end") == pytest.approx(expected)


def test_other_validation_leaves_the_average_in_its_place() -> None:
    loop = Loop().begin()
    loop.step(5.0)
    shown = loop.hook("on_train_end")
    loop.trainer.state.fn = "validate"
    assert shown != 5.0
    assert loop.hook("on_validation_start") == loop.hook("on_validation_end") == shown


@pytest.mark.parametrize("hook", [None, "on_validation_start", "on_train_end"])
def test_checkpoint_holds_the_average_as_the_model_whenever_it_is_made(hook: str | None) -> None:
    loop = Loop().begin()
    loop.step(5.0)
    if hook:
        loop.hook(hook)
    saved = loop.save()

    average = float(saved["average"]["average"]["first.weight"])
    assert 1.0 < average < 5.0
    assert float(saved["state_dict"]["first.weight"]) == average
    assert float(saved["state_dict"]["second.weight"]) == average  # tied
    assert float(saved["average"]["weights"]["first.weight"]) == 5.0
    assert list(saved["average"]["average"]) == ["first.weight"]


def test_training_goes_on_with_both() -> None:
    loop = Loop().begin()
    loop.step(5.0)
    saved = loop.save()
    resumed = Loop()
    resumed.model.load_state_dict(saved["state_dict"])
    resumed.average.load_state_dict(saved["average"])
    assert resumed.save()["average"] == saved["average"]  # stopped again before it began
    resumed.trainer.global_step = 1
    resumed.begin()
    assert resumed.model.value == 5.0
    for each in (loop, resumed):
        each.step(7.0)
    assert resumed.hook("on_validation_start") == loop.hook("on_validation_start")


def test_training_goes_on_without_the_average_by_the_weights_it_had() -> None:
    loop, other = Loop().begin(), Tied()
    loop.step(5.0)
    saved = loop.save()
    checkpoint = {"callbacks": {"WeightAverage": saved["average"]}}
    other.trainer = SimpleNamespace(callbacks=[])
    found = weights_of_training(checkpoint, cast(Any, other))
    assert {name: float(t) for name, t in found.items()} == {
        "first.weight": 5.0, "second.weight": 5.0,
    }  # fmt: skip

    other.trainer.callbacks = [WeightAverage(0.9)]  # it puts them in place itself
    assert weights_of_training(checkpoint, cast(Any, other)) == {}
    assert weights_of_training({}, cast(Any, Tied())) == {}


def test_shards_go_on_without_the_average_by_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = AssistantModule(tiny_model(), ObjectiveConfig(), OptimizerConfig(), num_steps=1)
    trainer: Any = SimpleNamespace(callbacks=[])
    module.trainer = trainer
    averages = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    name = "model.projector.0.weight"
    weights = {name: averages[name] + 1}
    path = tmp_path / "last.ckpt"
    callbacks = {"WeightAverage": {"weights": weights, "average": {name: averages[name]}}}
    torch.save({"state_dict": averages, "optimizer_states": [], "callbacks": callbacks}, path)

    given: dict[str, Tensor] = {}
    monkeypatch.setattr(
        sharded_strategy, "set_model_state_dict", lambda _, state, options: given.update(state)
    )
    strategy = ShardedStrategy(1)
    monkeypatch.setattr(strategy, "broadcast", lambda path: path)
    strategy._lightning_module = module
    strategy.load_checkpoint(path, weights_only=True)
    assert all(torch.equal(given[n], t) for n, t in (averages | weights).items())


def test_average_of_16_bits_keeps_what_rounding_would_lose() -> None:
    loop = Loop(0.9999, Tied(torch.bfloat16))
    loop.trainer.global_step = 10**6  # a decay without its warm-up
    loop.begin()
    for _ in range(100):
        loop.step(1.0078125)  # the next number of this type
    saved = loop.save()
    average = saved["average"]["average"]["first.weight"]
    assert average.dtype == torch.float32
    assert float(average) == pytest.approx(1 + 0.0078125 * (1 - 0.9999**100), abs=1e-5)
    assert saved["state_dict"]["first.weight"].dtype == torch.bfloat16


def test_weights_in_parts_are_refused() -> None:
    model = Tied()
    model.first.weight.full_tensor = lambda: None  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"ema_decay does not go with weights that are in parts"):
        Loop(model=model).begin()


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match=rf"ema_decay must be in \[0, 1\), got {decay}; 0 for no"):
        TrainerConfig(ema_decay=decay)


def config(cache: Path, **more: Any) -> RunConfig:
    settings = resuming.config(cache, **more)
    return replace(settings, trainer=replace(settings.trainer, ema_decay=0.5))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("average") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        return folder, fit(config(folder.parent / "data"), folder)


@pytest.fixture
def unharmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


def power_cut(*_: object) -> None:
    raise RuntimeError("power cut")


def in_training(patch: pytest.MonkeyPatch) -> None:
    stop_at(patch, 5, power_cut)


def in_validation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AssistantModule, "validation_step", power_cut)


def after_streams(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StreamingEvaluation, "on_validation_end", power_cut)


@pytest.mark.road
@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("cut", [in_training, in_validation, after_streams])
def test_run_that_was_stopped_goes_on_bit_for_bit(
    cut: Callable[[pytest.MonkeyPatch], None],
    whole: tuple[Path, dict[str, Tensor]],
    tmp_path: Path,
) -> None:
    folder, expected = whole
    settings = config(folder.parent / "data")
    with pytest.MonkeyPatch.context() as patch:
        cut(patch)
        with pytest.raises(RuntimeError, match="power cut"):
            fit(settings, tmp_path / "run")
    weights = fit(settings, tmp_path / "run")

    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    assert curves(tmp_path / "run") == curves(folder)
    ends = [
        torch.load(run / "checkpoints/last.ckpt", weights_only=True)["callbacks"]["WeightAverage"]
        for run in (folder, tmp_path / "run")
    ]
    for kind in ("weights", "average"):
        for name, tensor in ends[0][kind].items():
            assert torch.equal(tensor, ends[1][kind][name])


@pytest.mark.road
@pytest.mark.usefixtures("unharmed")
def test_average_is_validated_streamed_kept_and_left(
    whole: tuple[Path, dict[str, Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = whole
    settings = config(folder.parent / "data", steps=3)
    seen: list[dict[str, Tensor]] = []

    def look(module: Any) -> None:
        seen.append({name: t.clone() for name, t in module.state_dict().items()})

    validate = AssistantModule.validation_step
    monkeypatch.setattr(
        AssistantModule, "validation_step",
        lambda self, batch, i: (look(self), validate(self, cast(Batch, batch), i))[1],
    )  # fmt: skip
    monkeypatch.setattr(
        StreamingEvaluation, "on_validation_end", lambda self, trainer, module: look(module)
    )
    left = fit(settings, tmp_path / "run")

    saved = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    average = saved["callbacks"]["WeightAverage"]["average"]
    weights = saved["callbacks"]["WeightAverage"]["weights"]
    assert any(not torch.equal(weights[name], average[name]) for name in average)
    assert len(seen) >= 2
    for state in (*seen, saved["state_dict"], left):
        assert all(torch.equal(state[name], tensor) for name, tensor in average.items())


@pytest.mark.road
@pytest.mark.usefixtures("unharmed")
def test_run_goes_on_without_an_average_from_the_weights_of_training(
    whole: tuple[Path, dict[str, Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, average = whole
    shutil.copytree(folder, tmp_path / "run")
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    weights = last["callbacks"]["WeightAverage"]["weights"]
    begun: dict[str, Tensor] = {}
    start = AssistantModule.on_train_start

    def look(self: AssistantModule) -> None:
        start(self)
        begun.update({name: tensor.clone() for name, tensor in self.state_dict().items()})

    monkeypatch.setattr(AssistantModule, "on_train_start", look)
    fit(resuming.config(folder.parent / "data", steps=8), tmp_path / "run")
    assert any(not torch.equal(weights[name], average[name]) for name in weights)
    assert all(torch.equal(begun[name], tensor) for name, tensor in weights.items())
