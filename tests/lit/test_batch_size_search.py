"""The batch size is looked for among the longest conversations, and nothing else is changed."""

from __future__ import annotations

import random
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.trainer.connectors import data_connector
from torch import Tensor

from proassist_lit.build import Core, build_core, build_examples
from proassist_lit.config import RunConfig
from proassist_lit.errors import ConfigError, TrainingError
from proassist_lit.lit import batch_size_search
from proassist_lit.lit.batch_size_search import check_has_limit, with_found_batch_size
from proassist_lit.lit.module import AssistantModule
from proassist_lit.lit.quiet import quiet_libraries
from proassist_lit.lit.weight_average import room_for_average
from proassist_lit.run_directory import RunDirectory
from proassist_lit.trainer_config import TrainerConfig
from proassist_lit.types import Batch
from tests.lit.resuming import config


class Device:
    """A GPU that takes so many tokens at a time."""

    def __init__(self) -> None:
        self.most_tokens = 0
        self.seen: list[tuple[int, ...]] = []


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """It stands in for one that this machine need not have."""
    device, train = Device(), AssistantModule.training_step

    def step(self: AssistantModule, batch: Batch, batch_idx: int) -> Tensor:
        device.seen.append(batch.lengths)
        if sum(batch.lengths) > device.most_tokens:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return train(self, batch, batch_idx)

    monkeypatch.setattr(AssistantModule, "training_step", step)
    monkeypatch.setattr(batch_size_search, "check_has_limit", lambda _: None)
    return device


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Core, list[int]]:
    """Settings, objects, and the lengths of the conversations, the longest first."""
    settings = config(tmp_path_factory.mktemp("data") / "data")
    core = build_core(settings)
    lengths = sorted(build_examples(settings, core, "train").lengths, reverse=True)
    assert len(lengths) > 8
    return settings, core, lengths


def asking(settings: RunConfig, most: int, **trainer: Any) -> RunConfig:
    return replace(settings, trainer=replace(settings.trainer, find_batch_size=most, **trainer))


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here
@pytest.mark.parametrize(("fits", "most", "found"), [(3, 64, 3), (6, 64, 6), (6, 5, 5), (1, 8, 1)])
def test_as_many_of_the_longest_as_fit(
    fits: int, most: int, found: int, device: Device,
    built: tuple[RunConfig, Core, list[int]], tmp_path: Path,
) -> None:  # fmt: skip
    settings, core, lengths = built
    settings, run = asking(settings, most), RunDirectory(tmp_path / "run")
    device.most_tokens = sum(lengths[:fits])
    before = {name: tensor.clone() for name, tensor in core.model.state_dict().items()}
    torch_state, python_state = torch.get_rng_state(), random.getstate()

    changed = with_found_batch_size(settings, core, run, resumes=False)

    assert changed == replace(settings, data=replace(settings.data, batch_size=found))
    assert tuple(lengths[:found]) in device.seen  # it was tried, and it was the worst there is
    assert all(seen == tuple(lengths[: len(seen)]) for seen in device.seen)
    assert max(map(len, device.seen)) <= most
    after = core.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in core.model.parameters())
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert [path.name for path in run.path.iterdir()] == ["batch_size.json"]

    device.seen.clear()
    assert with_found_batch_size(settings, core, run, resumes=True) == changed
    assert device.seen == []


def held_at_each_step(
    taken: list[weakref.ref[Tensor]], settings: RunConfig, core: Core,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> list[int]:  # fmt: skip
    """How much of what is taken is there at each step of a search in which nothing fits."""
    alive: list[int] = []

    def step(self: AssistantModule, *_: Any) -> Tensor:
        alive.append(sum(ref() is not None for ref in taken))
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(AssistantModule, "training_step", step)
    monkeypatch.setattr(batch_size_search, "check_has_limit", lambda _: None)
    with pytest.raises(TrainingError, match="too large for the device"):
        with_found_batch_size(settings, core, RunDirectory(tmp_path / "run"), resumes=False)
    assert len(alive) >= 2
    return alive


@pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here
@pytest.mark.parametrize(("accumulate", "held"), [(1, 0), (2, 1)])
def test_room_for_added_up_gradients_is_taken_while_it_looks(
    accumulate: int, held: int, built: tuple[RunConfig, Core, list[int]],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings, core, _ = built
    trained = [p for p in core.model.parameters() if p.requires_grad]
    taken: list[weakref.ref[Tensor]] = []

    def take(like: Tensor, **options: Any) -> Tensor:
        room = torch.zeros_like(like, **options)
        taken.append(weakref.ref(room))
        return room

    monkeypatch.setattr(torch, "empty_like", take)
    settings = asking(settings, 2, accumulate=accumulate)
    alive = held_at_each_step(taken, settings, core, tmp_path, monkeypatch)
    assert set(alive) == {held * len(trained)}


@pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here
def test_a_trial_that_was_too_large_leaves_the_next_one_no_gradients(
    built: tuple[RunConfig, Core, list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, core, _ = built
    first = next(p for p in core.model.lm.get_decoder().layers[0].parameters())
    size, left = [0], list[tuple[int, int]]()
    train = AssistantModule.training_step

    def step(self: AssistantModule, batch: Batch, batch_idx: int) -> Tensor:
        size[0] = len(batch.lengths)
        left.append((size[0], sum(p.grad is not None for p in self.parameters())))
        return train(self, batch, batch_idx)

    def backward(gradient: Tensor) -> None:  # the last layers have theirs by now
        if size[0] > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(AssistantModule, "training_step", step)
    monkeypatch.setattr(batch_size_search, "check_has_limit", lambda _: None)
    hook = first.register_hook(backward)
    try:
        found = with_found_batch_size(
            asking(settings, 8), core, RunDirectory(tmp_path / "run"), resumes=False
        )
    finally:
        hook.remove()
    assert found.data.batch_size == 3
    assert max(tried for tried, _ in left) > 3
    assert {gradients for _, gradients in left} == {0}


@pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here
@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_room_for_the_average_is_taken_while_it_looks(
    decay: float, built: tuple[RunConfig, Core, list[int]],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings, core, _ = built
    trained = [p for p in core.model.parameters() if p.requires_grad]
    taken: list[weakref.ref[Tensor]] = []

    def take(*args: Any) -> list[Tensor]:
        room = room_for_average(*args)
        taken.extend(map(weakref.ref, room))
        assert [t.shape for t in room] == [p.shape for p in trained]
        assert {t.dtype for t in room} == {torch.float32}
        return room

    monkeypatch.setattr(batch_size_search, "room_for_average", take)
    settings = asking(settings, 2, ema_decay=decay)
    alive = held_at_each_step(taken, settings, core, tmp_path, monkeypatch)
    assert set(alive) == {len(trained) if decay else 0}


def test_room_for_the_average_is_as_exact_as_the_average() -> None:
    weights = [torch.nn.Parameter(torch.zeros(2, 3, dtype=torch.bfloat16))]
    (room,) = room_for_average(weights, torch.device("cpu"))
    assert (room.shape, room.dtype) == ((2, 3), torch.float32)


def test_a_search_is_heard_no_warnings_of(
    device: Device, built: tuple[RunConfig, Core, list[int]],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(data_connector, "suggested_max_num_workers", lambda _: 15)  # of many cores
    settings, core, lengths = built
    core.model.eval()
    device.most_tokens = sum(lengths[:1])
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        quiet_libraries()
        with_found_batch_size(
            asking(settings, 2), core, RunDirectory(tmp_path / "run"), resumes=False
        )
    assert [str(warning.message) for warning in heard] == []


@pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here
def test_one_conversation_that_is_too_large_is_named(
    device: Device, built: tuple[RunConfig, Core, list[int]], tmp_path: Path
) -> None:
    settings, core, lengths = built
    device.most_tokens = lengths[0] - 1
    with pytest.raises(
        TrainingError, match=rf"the longest conversation alone, of {lengths[0]} tokens.*; lower"
    ):
        with_found_batch_size(
            asking(settings, 8), core, RunDirectory(tmp_path / "run"), resumes=False
        )


@pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here
def test_ctrl_c_while_it_looks_is_one(
    device: Device,
    built: tuple[RunConfig, Core, list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(AssistantModule, "training_step", interrupted)
    settings, core, _ = built
    with pytest.raises(KeyboardInterrupt):
        with_found_batch_size(
            asking(settings, 8), core, RunDirectory(tmp_path / "run"), resumes=False
        )


def test_what_was_found_must_be_there_to_go_on(tmp_path: Path) -> None:
    nothing: Any = None
    with pytest.raises(ConfigError, match=r"batch_size\.json is not there.*; go on with"):
        with_found_batch_size(
            asking(config(tmp_path), 8), nothing, RunDirectory(tmp_path / "run"), resumes=True
        )


def test_what_has_no_limit_is_refused(tmp_path: Path) -> None:
    settings = config(tmp_path)
    with pytest.raises(ConfigError, match=r"needs a GPU.*; a CPU would swap.*data\.batch_size"):
        check_has_limit(asking(settings, 8))
    with pytest.raises(ConfigError, match=r"looks on one device, but trainer\.devices=auto"):
        check_has_limit(asking(settings, 8, devices="auto"))
    with pytest.raises(ConfigError, match=r"but trainer\.micro_tokens limits .*; leave one"):
        check_has_limit(asking(settings, 8, micro_tokens=100))
    filled = replace(settings, data=replace(settings.data, max_tokens=5000))
    with pytest.raises(ConfigError, match=r"but data\.max_tokens limits .*; leave one"):
        check_has_limit(asking(filled, 8))
    with pytest.raises(ConfigError, match=r"find_batch_size must be >= 0, got -1; 0 looks for"):
        TrainerConfig(find_batch_size=-1)
