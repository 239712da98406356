"""Muon moves matrices as torch's own does, and leaves all else to AdamW."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from proassist_lit.config import RunConfig
from proassist_lit.errors import CheckpointError, ConfigError
from proassist_lit.lit import muon
from proassist_lit.lit.module import AssistantModule
from proassist_lit.lit.muon import Muon, orthogonal
from proassist_lit.lit.settings_checks import check_optimizer
from proassist_lit.model.config import LoraConfig, TrainMode
from proassist_lit.model.lora import add_lora
from proassist_lit.objectives import ObjectiveConfig
from proassist_lit.optimizer_config import OptimizerConfig, OptimizerKind
from proassist_lit.trainer_config import Parallel
from tests.fakes import tiny_model
from tests.lit.resuming import config, curves, fit

SHAPES = ((24, 24), (24, 24), (40, 24), (24, 40))


def matrices(seed: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def set_gradients(parameters: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("shape", [(3, 128, 128), (2, 16, 48), (2, 48, 16)])
def test_most_singular_values_become_about_one(shape: tuple[int, ...]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonal(5 * matrix)
    values = torch.linalg.svdvals(found)
    assert found.shape == shape
    assert ((values > 0.65) & (values < 1.25)).float().mean() > 0.9
    assert values.max() < 1.25
    assert torch.linalg.svdvals(matrix / matrix.norm(dim=(1, 2), keepdim=True)).max() < 0.5


def test_directions_are_kept() -> None:
    matrix = torch.randn(1, 20, 30, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix[0], full_matrices=False)
    found = orthogonal(matrix)[0]
    inner = u.T @ found @ v.T  # diagonal where the singular vectors are the same
    assert (inner - torch.diag(inner.diagonal())).abs().max() < 1e-4


def test_steps_are_those_of_torch() -> None:
    ours, theirs = matrices(1), matrices(1)
    mine = Muon([{"params": ours, "orthogonal": True, "weight_decay": 0.1}], lr=0.02)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    before = deepcopy(ours)
    for seed in range(4):
        for parameters, optimizer in ((ours, mine), (theirs, reference)):
            set_gradients(parameters, seed)
            optimizer.step()
    for parameter, other, old in zip(ours, theirs, before, strict=True):
        moved = (other - old).norm()
        assert moved > 0.1
        assert (parameter - other).norm() < 0.02 * moved  # torch's are of bfloat16


def test_large_matrices_go_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    together, apart = matrices(1), matrices(1)
    for parameters, most in ((together, 2**24), (apart, 1)):
        monkeypatch.setattr(muon, "MOST_AT_ONCE", most)
        set_gradients(parameters, 0)
        before = parameters[0].detach().clone()
        Muon([{"params": parameters, "orthogonal": True}], lr=0.1).step()
        assert not torch.equal(parameters[0], before)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other)


def test_other_groups_are_those_of_adamw() -> None:
    (one, two), (same, _) = matrices(2)[:2], matrices(2)[:2]
    groups = [{"params": [two], "orthogonal": True}, {"params": [one], "betas": (0.9, 0.95)}]
    mine = Muon(groups, lr=0.01)
    reference = torch.optim.AdamW([same], lr=0.01, betas=(0.9, 0.95))
    for seed in range(3):
        set_gradients([one], seed)
        set_gradients([two], seed)
        set_gradients([same], seed)
        mine.step()
        reference.step()
    assert torch.equal(one, same)
    assert len(mine.param_groups) == 2


def test_what_has_no_gradient_stays() -> None:
    one, two = matrices(3)[:2]
    optimizer = Muon([{"params": [one, two], "orthogonal": True}], lr=0.1)
    before = one.detach().clone(), two.detach().clone()
    set_gradients([two], 0)
    loss = optimizer.step(lambda: 3.5)
    assert loss == 3.5
    assert torch.equal(one, before[0])
    assert not torch.equal(two, before[1])


def groups_of(model: Any) -> list[list[str]]:
    module = AssistantModule(
        model, ObjectiveConfig(), OptimizerConfig(kind=OptimizerKind.MUON), num_steps=2
    )
    optimizer: Any = module.configure_optimizers()
    names = {id(p): name for name, p in model.named_parameters()}
    found = optimizer["optimizer"].param_groups
    assert [group["orthogonal"] for group in found] == [True, False, False]
    return [[names[id(p)] for p in group["params"]] for group in found]


def test_matrices_of_layers_are_made_orthogonal_and_no_others() -> None:
    model = tiny_model()
    inside, outside, vectors = groups_of(model)
    assert inside
    assert all(".layers." in name and "norm" not in name for name in inside)
    assert any("embed_tokens" in name for name in outside)
    assert any("speak_head" in name for name in outside)
    assert not any(".layers." in name for name in outside)
    assert len(inside + outside + vectors) == len(list(model.parameters()))


def test_low_rank_additions_are_matrices_of_layers() -> None:
    model = tiny_model()
    add_lora(model.lm, LoraConfig(rank=2, alpha=4, dropout=0.0))
    inside, outside, _ = groups_of(model)
    assert inside
    assert all("lora_" in name for name in inside)
    assert not any("lora_" in name for name in outside)


def with_kind(settings: RunConfig, kind: OptimizerKind) -> RunConfig:
    optimizer = replace(settings.trainer.optimizer, kind=kind)
    return replace(settings, trainer=replace(settings.trainer, optimizer=optimizer))


def test_trained_weights_are_warned_of(tmp_path: Path) -> None:
    settings = with_kind(config(tmp_path), OptimizerKind.MUON)
    model = tiny_model()
    check_optimizer(settings, model)  # a warning would be an error
    for begins in ({"backbone": "smollm2", "chat": "chatml"}, {"init_from": "mine"}):
        trained = replace(settings, model=replace(settings.model, **begins))
        said = rf"begins with the weights of {next(iter(begins.values()))}; trainer=finetune"
        with pytest.warns(UserWarning, match=said):
            check_optimizer(trained, model)


def test_layers_that_are_not_trained_are_warned_of(tmp_path: Path) -> None:
    settings = with_kind(config(tmp_path, train=TrainMode.FROZEN), OptimizerKind.MUON)
    model = tiny_model()
    model.lm.requires_grad_(False)
    with pytest.warns(UserWarning, match=r"model.train=frozen trains none; trainer=finetune"):
        check_optimizer(settings, model)
    check_optimizer(with_kind(settings, OptimizerKind.ADAMW), model)


def test_shards_are_refused(tmp_path: Path) -> None:
    settings = config(tmp_path, strategy=Parallel.FSDP2)
    with pytest.raises(ConfigError, match=r"kind=muon works on whole matrices.*strategy=ddp"):
        with_kind(settings, OptimizerKind.MUON)


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here
def test_a_run_goes_on_bit_for_bit_with_the_same_optimizer_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")

    def settings(steps: int) -> RunConfig:
        return with_kind(config(tmp_path / "data", steps=steps), OptimizerKind.MUON)

    def weights(folder: Path) -> dict[str, Tensor]:
        return fit(settings(4), folder)

    whole = weights(tmp_path / "whole")
    fit(settings(2), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"holds what muon keeps, but .*kind=adamw"):
        fit(with_kind(settings(4), OptimizerKind.ADAMW), tmp_path / "run")
    parts = weights(tmp_path / "run")
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())
    assert len(curves(tmp_path / "whole")) > 3
