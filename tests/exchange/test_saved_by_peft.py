"""Checkpoints of ProAssist as the library peft saves them, and peft's own way to merge them."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from proassist_lit.errors import CheckpointError
from proassist_lit.exchange.proassist_in import read_proassist
from tests.exchange.checkpoints import config_json
from tests.exchange.fakes import base_folder, shake
from tests.fakes import VISION_SIZE

pytestmark = [  # peft's own
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
]
PAPER = r"model\.layers.*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)|lm_head$"


class TheirModel(LlamaForCausalLM):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.mm_projector = nn.Sequential(
            nn.Linear(VISION_SIZE, size), nn.GELU(), nn.Linear(size, size)
        )
        self.binary_decision_head = nn.Linear(size, 1)


def save_rounds(
    tmp_path: Path, targets: str | list[str], whole: list[str], *, grown: int
) -> tuple[Path, dict[str, Tensor]]:
    """A checkpoint, and the tensors of the model with its additions merged.

    Its output matrix is not that of ``llm_pretrained``. If it did not grow, there is an earlier
    round of additions.
    """
    base = base_folder(tmp_path / "base")
    weights = LlamaForCausalLM.from_pretrained(base).state_dict()
    model = TheirModel(LlamaConfig.from_pretrained(base))
    model.load_state_dict(weights, strict=False)
    if grown:
        model.resize_token_embeddings(len(weights["lm_head.weight"]) + grown, mean_resizing=False)
    with torch.no_grad():
        model.lm_head.weight += 0.1
    folder = tmp_path / "checkpoint"
    rounds = (folder,) if grown else (folder / "adapter_0", folder)
    for seed, path in enumerate(rounds):
        config = peft.LoraConfig(
            r=2, lora_alpha=3.0, target_modules=targets, task_type="CAUSAL_LM",
            modules_to_save=["mm_projector", "binary_decision_head", *whole],
        )  # fmt: skip
        adapted = peft.get_peft_model(model, config)
        shake(adapted, seed)
        adapted.save_pretrained(path)
        model = adapted.merge_and_unload()
    config_json(folder, base)
    return folder, model.state_dict()


@pytest.mark.parametrize(
    ("targets", "whole", "grown"),
    [(PAPER, [], 0), (["q_proj", "lm_head"], ["embed_tokens"], 3)],
    ids=["paper", "grown"],
)
def test_an_output_matrix_that_is_saved_beside_its_additions_counts(
    targets: str | list[str], whole: list[str], grown: int, tmp_path: Path
) -> None:
    folder, want = save_rounds(tmp_path, targets, whole, grown=grown)
    for path in folder.rglob("adapter_model.safetensors"):
        assert "base_model.model.lm_head.base_layer.weight" in load_file(path)

    model, _ = read_proassist(folder)

    for name, tensor in model.lm.state_dict().items():
        torch.testing.assert_close(tensor, want[name], atol=1e-5, rtol=1e-5)
    assert torch.equal(model.projector[0].weight, want["mm_projector.0.weight"])


def test_rows_of_which_peft_saves_the_output_only_are_refused(tmp_path: Path) -> None:
    folder, _ = save_rounds(tmp_path, PAPER, [], grown=3)  # their embeddings are lost
    with pytest.raises(
        CheckpointError, match=r"lm_head\.base_layer\.weight: \(\d+, 16\) instead of \(\d+, 16\)"
    ):
        read_proassist(folder)
