"""Low-rank additions under autocast: nothing is copied to float32 and back."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from proassist_lit.data.collate import pack
from proassist_lit.lit import module as lit_module
from proassist_lit.lit.module import AssistantModule
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import LoraConfig, ModelConfig, TrainMode
from proassist_lit.model.lora import add_lora
from proassist_lit.objectives import ObjectiveConfig
from proassist_lit.optimizer_config import OptimizerConfig
from tests.fakes import VISION_SIZE, tiny_model
from tests.sequence.batches import example_set

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here


def trained(precision: Any, lora: LoraConfig) -> tuple[AssistantModel, set[torch.dtype]]:
    """After two steps, with the types of what came to the first matrices of the additions."""
    lm, seen = tiny_model(dtype=torch.bfloat16).lm, set[torch.dtype]()
    torch.manual_seed(0)
    add_lora(lm, lora)
    model = AssistantModel(
        lm, vision_size=VISION_SIZE, config=ModelConfig(backbone="elsewhere", train=TrainMode.LORA)
    )
    for name, part in lm.named_modules():
        if name.endswith("lora_A.default"):
            part.register_forward_pre_hook(lambda _, args: seen.add(args[0].dtype))
    trainer = L.Trainer(
        accelerator="cpu", precision=precision, max_steps=2, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    module = AssistantModule(model, ObjectiveConfig(), OptimizerConfig(lr=0.01), num_steps=2)
    batches = [pack([example_set()[0, 0]])] * 2
    trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return model, seen


def additions(model: AssistantModel) -> Tensor:
    weights = [p.detach().flatten() for n, p in model.named_parameters() if ".lora_" in n]
    return torch.cat(weights)


@pytest.mark.parametrize(
    ("precision", "dropout", "dtype"),
    [
        ("bf16-mixed", 0.0, torch.bfloat16),
        ("bf16-mixed", 0.05, torch.float32),  # a CPU would scale by 1 / 0.95 rounded to 16 bits
        ("32-true", 0.0, torch.float32),
    ],
)
def test_what_comes_to_additions_is_cast_only_where_it_must_be(
    precision: str, dropout: float, dtype: torch.dtype
) -> None:
    model, seen = trained(precision, LoraConfig(rank=2, dropout=dropout))
    assert seen == {dtype}
    model.lm_logits(model.hidden_states(model.embed_tokens(torch.arange(8))[None]))
    assert torch.float32 in seen


def test_additions_learn_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, seen = trained("bf16-mixed", LoraConfig(rank=2, dropout=0.0))
    monkeypatch.setattr(lit_module, "cast_inputs", lambda *_, **__: None)
    theirs, cast = trained("bf16-mixed", LoraConfig(rank=2, dropout=0.0))
    assert seen != cast
    assert torch.equal(additions(mine), additions(theirs))
    assert additions(mine).abs().sum() > 0
