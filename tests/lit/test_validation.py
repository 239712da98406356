"""The losses on val are those of all of val, whatever it is cut into."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch

from proassist_lit.build import build_core
from proassist_lit.data.sources.toy import ToyConfig
from proassist_lit.lit.build import build_datamodule, build_module
from proassist_lit.lit.datamodule import ConversationDataModule
from proassist_lit.lit.module import AssistantModule
from proassist_lit.objectives import ObjectiveKind, compute_losses
from tests.lit.resuming import config

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the data, drawn once."""
    return tmp_path_factory.mktemp("val")


def built(
    folder: Path, batch_size: int, kind: ObjectiveKind = ObjectiveKind.PER_TOKEN, **data: Any
) -> tuple[AssistantModule, ConversationDataModule]:
    settings = config(folder / "data")
    toy = ToyConfig(num_train=5, num_val=5, num_test=1)
    settings = replace(
        settings,
        data=replace(settings.data, toy=toy, batch_size=batch_size, **data),
        objective=replace(settings.objective, kind=kind),
    )
    L.seed_everything(1, verbose=False)
    core = build_core(settings)
    return build_module(settings, core, 1), build_datamodule(settings, core)


def validated(module: AssistantModule, datamodule: ConversationDataModule) -> dict[str, float]:
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        use_distributed_sampler=False,
    )  # fmt: skip
    [found] = trainer.validate(module, datamodule=datamodule, verbose=False)
    return dict(found)


@pytest.mark.road
@pytest.mark.parametrize("kind", [ObjectiveKind.PER_TOKEN, ObjectiveKind.PER_TURN])
def test_losses_are_those_of_all_of_val_at_once(folder: Path, kind: ObjectiveKind) -> None:
    module, whole = built(folder, 5, kind)
    want = validated(module, whole)
    [batch] = whole.val_dataloader()
    with torch.no_grad():
        losses = compute_losses(module.model.eval(), batch, module._objective)
    assert want["val/loss"] == pytest.approx(float(losses.total), rel=1e-6)
    assert want["val/loss_speak"] == pytest.approx(float(losses.parts["speak"]), rel=1e-6)
    assert want.keys() == {
        f"val/{name}" for name in
        ("loss", "loss_response", "loss_speak", "loss_dst_response", "loss_dst")
    }  # fmt: skip
    for batch_size in (1, 2):
        module, parts = built(folder, batch_size, kind)
        assert len(parts.val_dataloader()) == -(-5 // batch_size)
        assert validated(module, parts) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("micro", [{"micro_tokens": 1}, {"micro_conversations": 2}], ids=str)
def test_no_more_is_validated_at_a_time_than_is_trained(
    folder: Path, micro: dict[str, int]
) -> None:
    module, datamodule = built(folder, 5)
    want, seen = validated(module, datamodule), list[int]()
    module._micro_tokens = micro.get("micro_tokens")
    module._micro_conversations = micro.get("micro_conversations")
    module.model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0].lengths)))

    assert validated(module, datamodule) == pytest.approx(want, rel=1e-6)
    assert seen == ([1] * 5 if "micro_tokens" in micro else [2, 2, 1])


@pytest.mark.road
def test_losses_of_padded_and_filled_batches_are_the_same(folder: Path) -> None:
    want = validated(*built(folder, 5))
    got = validated(*built(folder, 2, packing=False))
    assert got == pytest.approx(want, rel=1e-6)
    module, filled = built(folder, 2, max_tokens=1000)
    assert len(filled.val_dataloader()) > 1
    assert validated(module, filled) == pytest.approx(want, rel=1e-6)


def test_shares_of_processes_add_up_to_the_whole(folder: Path) -> None:
    module, datamodule = built(folder, 1)
    module.eval()

    def counted(rank: int, of: int) -> torch.Tensor:
        datamodule.trainer = SimpleNamespace(global_rank=rank, world_size=of)  # type: ignore[assignment]
        loader = datamodule.val_dataloader()
        module._trainer = SimpleNamespace(val_dataloaders=loader)  # type: ignore[assignment]
        module.on_validation_epoch_start()
        with torch.no_grad():
            for batch_idx, batch in enumerate(loader):
                module.validation_step(batch, batch_idx)
        assert batch_idx + 1 == -(-5 // of)  # as many of all
        assert module._validated is not None
        return module._validated

    whole = counted(0, 1)
    for of in (2, 3, 7):
        shares = torch.stack([counted(rank, of) for rank in range(of)])
        torch.testing.assert_close(shares.sum(dim=0), whole, rtol=1e-6, atol=0)
