"""Settings that change memory and speed alone arrive where they have an effect."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device as batch_to

from proassist_lit.config import RunConfig
from proassist_lit.data.collate import collate, pack
from proassist_lit.data.config import DataConfig
from proassist_lit.lit import build, module
from proassist_lit.lit.build import build_module
from proassist_lit.lit.module import AssistantModule
from proassist_lit.model.training_layers import GradientCheckpointing
from proassist_lit.trainer_config import TrainerConfig
from proassist_lit.types import Example
from tests.fakes import tiny_model
from tests.sequence.batches import example_set


def built(data: DataConfig | None = None, **trainer: Any) -> AssistantModule:
    config = RunConfig(data=data or DataConfig(), trainer=TrainerConfig(**trainer))
    core: Any = SimpleNamespace(model=tiny_model())
    return build_module(config, core, 1)


@pytest.fixture(scope="module")
def example() -> Example:
    made = example_set()[0, 0]
    return replace(made, image_features=made.image_features.double())


@pytest.mark.parametrize("make", [collate, pack])
@pytest.mark.parametrize(
    ("accumulate", "batch_size", "max_conversations", "micro_conversations", "want"),
    [
        (1, 6, None, None, [6]),
        (3, 2, None, None, [2, 2, 2]),
        (2, 3, None, None, [3, 3]),
        (1, 6, None, 2, [2, 2, 2]),
        (2, 3, None, 1, [1] * 6),
        (2, 1, 3, None, [3, 3]),  # batches filled with tokens: data.batch_size has no say
        (1, 1, 6, None, [6]),
        (2, 1, 3, 2, [2, 2, 2]),
    ],
)
def test_so_many_conversations_go_forward_at_a_time(
    accumulate: int, batch_size: int, max_conversations: int | None,
    micro_conversations: int | None, want: list[int], make: Any, example: Example,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    length, seen = len(example.input_ids), list[int]()
    tokens = {n: n * length if n else None for n in (max_conversations, micro_conversations)}
    data = DataConfig(batch_size=batch_size, max_tokens=tokens[max_conversations])
    found = built(data, accumulate=accumulate, micro_tokens=tokens[micro_conversations])
    monkeypatch.setattr(AssistantModule, "log", lambda *_, **__: None)
    found._trainer = SimpleNamespace(  # type: ignore[assignment]
        world_size=1, precision_plugin=None, optimizers=[torch.optim.SGD(found.parameters(), 0.1)]
    )
    found.model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0].lengths)))

    found.training_step(make([example] * 6), 0)

    assert seen == want


@pytest.mark.parametrize("fused", [True, False])
def test_layers_are_fused_where_that_is_asked_for(
    fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(module, "fuse", asked.append)
    found = built(fused=fused)
    found._trainer = SimpleNamespace(  # type: ignore[assignment]
        precision="32-true", lr_scheduler_configs=[]
    )
    found.setup("fit")
    assert asked == []
    found.on_train_start()
    assert asked == [found.model.lm] * fused


@pytest.mark.parametrize("compiles", [True, False])
@pytest.mark.parametrize("keeps", GradientCheckpointing)
def test_layers_are_prepared_as_asked_for(
    keeps: GradientCheckpointing, compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        build, "prepare_layers", lambda lm, keeps, *, compiles: asked.append((lm, keeps, compiles))
    )
    found = built(gradient_checkpointing=keeps, compile=compiles)
    assert asked == [(found.model.lm, keeps, compiles)]


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_batches_go_to_a_gpu_while_it_computes(
    device: str, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, asked = pack([example]), set[tuple[str, bool]]()

    def to(tensor: torch.Tensor, device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        asked.add((device.type, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", to)
    batch_to(batch, torch.device(device))  # as Lightning does
    assert asked == {(device, device == "cuda")}  # elsewhere it might be read too early


def test_the_rate_is_logged_from_the_cpu(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: dict[str, Any] = {}
    found = built()
    monkeypatch.setattr(
        AssistantModule, "log", lambda _, name, value, **__: logged.update({name: value})
    )
    found._trainer = SimpleNamespace(  # type: ignore[assignment]
        world_size=1, precision_plugin=None, optimizers=[torch.optim.SGD(found.parameters(), 0.1)]
    )
    found.training_step(pack([example]), 0)

    assert torch.equal(
        logged["train/lr"], torch.tensor(0.1)
    )  # of a number Lightning makes one on the GPU
