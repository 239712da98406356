"""The optimizer of a run: one kernel a step where nothing speaks against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torch.utils.data import DataLoader

from proassist_lit.data.collate import pack
from proassist_lit.lit.module import AssistantModule
from proassist_lit.objectives import ObjectiveConfig
from proassist_lit.optimizer_config import OptimizerConfig, OptimizerKind
from tests.fakes import tiny_model
from tests.lit.resuming import config, fit, same
from tests.sequence.batches import example_set

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here


@pytest.mark.parametrize("kind", OptimizerKind)
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_weights_move_in_one_kernel_by_a_gradient_that_is_unscaled_and_clipped(
    precision: Any, kind: OptimizerKind
) -> None:
    def moved(**changes: Any) -> tuple[Tensor, bool]:
        """Weights after two steps, and whether one kernel made them."""
        settings = OptimizerConfig(kind=kind, lr=1e-3, warmup_steps=0)
        module = AssistantModule(
            tiny_model(dtype=torch.float32), ObjectiveConfig(), settings, num_steps=2
        )
        configure = module.configure_optimizers

        def changed() -> Any:
            built: Any = configure()
            for group in built["optimizer"].param_groups:
                group.update(changes)
            return built

        module.configure_optimizers = changed  # type: ignore[method-assign]
        trainer = L.Trainer(
            accelerator="cpu", plugins=[MixedPrecision(precision, "cpu")], max_steps=2,
            gradient_clip_val=0.1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader([pack([example_set()[0, 0]])] * 2, batch_size=None))  # type: ignore[arg-type]
        (optimizer,) = trainer.optimizers
        in_one = all(group["fused"] for group in optimizer.param_groups)
        return torch.cat([p.detach().flatten() for p in module.parameters()]), in_one

    (one, in_one), (other, still) = moved(), moved(fused=False)
    assert (in_one, still) == (True, False)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.road
def test_a_run_whose_optimizer_went_tensor_by_tensor_goes_on_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    make = torch.optim.AdamW.__init__

    def by_tensor(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs | {"fused": None})

    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.AdamW, "__init__", by_tensor)
        expected = fit(config(tmp_path / "data"), tmp_path / "whole")
        fit(config(tmp_path / "data", steps=2), tmp_path / "run")
    weights = fit(config(tmp_path / "data"), tmp_path / "run")
    assert same(weights, expected)
