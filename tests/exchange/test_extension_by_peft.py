"""Checkpoints of the DST extension as it saves them: of peft, without config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from proassist_lit.commands.export import load_assistant
from proassist_lit.commands.main import main
from proassist_lit.exchange.proassist_in import read_proassist
from proassist_lit.model.config import HeadType
from tests.exchange.checkpoints import lora_checkpoint
from tests.exchange.fakes import base_folder, error, shake, stream
from tests.fakes import VISION_SIZE

Captured = pytest.CaptureFixture[str]

pytestmark = [  # peft's own
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer:UserWarning"),
]
HEADS = ["mm_projector", "speaking_decision_head", "dst_update_head"]


class TheirModel(LlamaForCausalLM):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.mm_projector = nn.Sequential(
            nn.Linear(VISION_SIZE, size), nn.GELU(), nn.Linear(size, size)
        )
        heads = [
            nn.Sequential(nn.Linear(size, size // 2), nn.GELU(), nn.Linear(size // 2, 1))
            if getattr(config, "mlp", False) else nn.Linear(size, 1)
            for _ in range(2)
        ]  # fmt: skip
        self.speaking_decision_head, self.dst_update_head = heads


def save(
    tmp_path: Path, whole: tuple[str, ...] = (), *, mlp: bool = False, **how: Any
) -> tuple[Path, dict[str, Tensor]]:
    """A checkpoint over a tied backbone, and the tensors of the model with it merged."""
    base = base_folder(tmp_path / "base", tied=True)
    config = LlamaConfig.from_pretrained(base)
    config.mlp = mlp
    model = TheirModel(config)
    model.load_state_dict(LlamaForCausalLM.from_pretrained(base).state_dict(), strict=False)
    model.name_or_path = str(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<image>", "[DST]", "[ASST]"], special_tokens=True)
    model.resize_token_embeddings(len(tokenizer))
    settings = peft.LoraConfig(
        r=2, lora_alpha=3.0, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM",
        modules_to_save=[*HEADS, *whole],
    )  # fmt: skip
    adapted = peft.get_peft_model(model, settings)
    shake(adapted)
    folder = tmp_path / "checkpoint-500"
    adapted.save_pretrained(folder, **how)
    tokenizer.save_pretrained(folder)
    assert not (folder / "config.json").exists()
    merged = adapted.merge_and_unload()
    return folder, {name: tensor.clone() for name, tensor in merged.state_dict().items()}


def change(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.mark.parametrize("mlp", [False, True], ids=["linear", "mlp"])
def test_what_config_json_would_say_is_read_off_the_adapter(mlp: bool, tmp_path: Path) -> None:
    folder, want = save(tmp_path, mlp=mlp)
    assert main(["import", str(folder), str(tmp_path / "in")]) == 0

    model, about = read_proassist(folder)
    for name, tensor in model.lm.state_dict().items():
        torch.testing.assert_close(tensor, want[name], atol=1e-6, rtol=1e-6)
    layer = ".2" if mlp else ""
    assert torch.equal(
        model.speak_head.net.state_dict()[f"{layer[1:]}.weight".lstrip(".")],
        want[f"speaking_decision_head{layer}.weight"],
    )
    assert torch.equal(model.projector[0].weight, want["mm_projector.0.weight"])
    assert about.vision_size == VISION_SIZE
    assert about.train == "lora"
    config = about.config
    assert config.model.backbone == str(tmp_path / "base")
    assert config.model.head is (HeadType.MLP if mlp else HeadType.LINEAR)
    assert (config.model.chat, config.data.num_tokens_per_img) == ("dst_ext", 1)
    assert (config.data.source, config.data.max_seq_len) == ("dst", 4096)
    assert stream(model).frames


def test_without_config_json_all_that_is_wrong_is_in_one_list(
    tmp_path: Path, capsys: Captured
) -> None:
    folder, _ = save(tmp_path)
    path = folder / "adapter_model.safetensors"
    lost = ("mm_projector.0.weight", "dst_update_head.bias", "layers.0.self_attn.q_proj.lora_A")
    save_file({n: t for n, t in load_file(path).items() if not any(k in n for k in lost)}, path)
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    message = capsys.readouterr().err
    assert "1 missing: model.layers.0.self_attn.q_proj.lora_A.weight" in message
    assert "2 missing: dst_head.net.bias, projector.0.weight" in message


def test_a_backbone_that_the_adapter_does_not_name_is_asked_for(
    tmp_path: Path, capsys: Captured
) -> None:
    folder, _ = save(tmp_path)
    change(folder / "adapter_config.json", base_model_name_or_path=None)
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    assert "names no base_model_name_or_path; give its backbone with --base" in error(capsys)
    base = str(tmp_path / "base")
    assert main(["import", str(folder), str(tmp_path / "in"), "--base", base]) == 0


def test_of_proassist_itself_config_json_must_be_there(tmp_path: Path, capsys: Captured) -> None:
    folder, _, _ = lora_checkpoint(tmp_path, "linear")
    (folder / "config.json").unlink()
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    assert "config.json with vision_hidden_size is missing; only adapters of the DST" in error(
        capsys
    )


def test_an_adapter_without_the_rows_of_its_tokens_is_refused(
    tmp_path: Path, capsys: Captured
) -> None:
    folder, want = save(tmp_path, save_embedding_layers=False)  # as peft does by itself, offline
    rows = len(want["lm_head.weight"]) - 3
    path = folder / "adapter_model.safetensors"
    tensors = {n: t for n, t in load_file(path).items() if "dst_update_head.bias" not in n}
    save_file(tensors, path)
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    message = capsys.readouterr().err
    assert f"1 missing: model.embed_tokens.weight with rows for [DST] ({rows + 1}), [ASST]" in (
        message
    )
    assert "save_embedding_layers=True" in message
    assert "1 missing: dst_head.net.bias" in message  # in one list


@pytest.mark.parametrize(
    "whole", [("embed_tokens", "lm_head"), ("lm_head",), ("embed_tokens",)], ids=" ".join
)
def test_matrices_that_were_trained_apart_stay_apart(
    whole: tuple[str, ...], tmp_path: Path
) -> None:
    folder, want = save(tmp_path, whole)
    assert not torch.equal(want["lm_head.weight"], want["model.embed_tokens.weight"])
    model, _ = read_proassist(folder)
    for name, tensor in model.lm.state_dict().items():
        torch.testing.assert_close(tensor, want[name], atol=1e-6, rtol=1e-6)
    assert not model.lm.config.tie_word_embeddings
    assert main(["import", str(folder), str(tmp_path / "in")]) == 0
    again, _ = load_assistant(tmp_path / "in")  # and stay so
    for name, tensor in again.lm.state_dict().items():
        torch.testing.assert_close(tensor, want[name], atol=1e-6, rtol=1e-6)


def test_matrices_that_are_one_stay_one(tmp_path: Path) -> None:
    folder, _ = save(tmp_path)
    lm = read_proassist(folder)[0].lm
    assert lm.get_output_embeddings().weight is lm.get_input_embeddings().weight
