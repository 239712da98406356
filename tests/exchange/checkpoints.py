"""Checkpoints in the layout of ProAssist and its DST extension, made here, tensor by tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaForCausalLM

from tests.exchange.fakes import base_folder
from tests.fakes import VISION_SIZE

Tensors = dict[str, Tensor]
HIDDEN, RANK, ALPHA = 16, 2, 3.0


def draw(*shape: int, seed: int, std: float = 0.5) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * std


def head(kind: str, *, seed: int) -> Tensors:
    """Of ProAssist's modules ``linear`` and ``mlp``."""
    if kind == "linear":
        return {"weight": draw(1, HIDDEN, seed=seed), "bias": draw(1, seed=seed + 1)}
    half = HIDDEN // 2
    return {
        "0.weight": draw(half, HIDDEN, seed=seed), "0.bias": draw(half, seed=seed + 1),
        "2.weight": draw(1, half, seed=seed + 2), "2.bias": draw(1, seed=seed + 3),
    }  # fmt: skip


def read_head(tensors: Tensors, hidden: Tensor) -> Tensor:
    """(F, D) to (F,) raw scores of a head."""
    if "weight" in tensors:
        return F.linear(hidden, tensors["weight"], tensors["bias"])[:, 0]
    inner = F.gelu(F.linear(hidden, tensors["0.weight"], tensors["0.bias"]))
    return F.linear(inner, tensors["2.weight"], tensors["2.bias"])[:, 0]


def projector() -> Tensors:
    return {
        "0.weight": draw(HIDDEN, VISION_SIZE, seed=1), "0.bias": draw(HIDDEN, seed=2),
        "2.weight": draw(HIDDEN, HIDDEN, seed=3), "2.bias": draw(HIDDEN, seed=4),
    }  # fmt: skip


def named(module: str, tensors: Tensors) -> Tensors:
    return {f"{module}.{name}": tensor for name, tensor in tensors.items()}


def config_json(folder: Path, base: Path, **changes: Any) -> None:
    data = json.loads((base / "config.json").read_text()) | {
        "architectures": ["ProActLlamaForCausalLM"], "llm_pretrained": str(base),
        "vision_hidden_size": VISION_SIZE, "use_img_cls_token": True, "img_patch_token_size": 0,
        "img_sep_token": "", "max_seq_len": 2048, "exceed_context_handling": "drop_middle",
        "use_binary_decision_head": True, "binary_decision_head_type": "linear",
        "binary_loss_weight": 1.0, "w2t_logit_weight": 1.0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(data | changes))


def lora_round(
    folder: Path, layers: tuple[str, ...], beside: Tensors, *, seed: int, rows: int = 0
) -> Tensors:
    """Write an adapter; return what it adds to each weight."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"q_proj": (16, 16), "v_proj": (8, 16), "down_proj": (16, 20), "lm_head": (rows, 16)}
    files, added = {}, {}
    for number, layer in enumerate(layers):
        out, into = sizes[layer.rpartition(".")[2]]
        a, b = draw(RANK, into, seed=seed + number), draw(out, RANK, seed=seed + 50 + number)
        files |= {f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b}
        added[f"{layer}.weight"] = b @ a * (ALPHA / RANK)
    tensors = {f"base_model.model.{name}": t for name, t in (files | beside).items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "LORA",
                "task_type": "CAUSAL_LM",
                "base_model_name_or_path": "gone",
                "r": RANK,
                "lora_alpha": ALPHA,
                "lora_dropout": 0.05,
                "inference_mode": True,
                "target_modules": sorted({layer.rpartition(".")[2] for layer in layers}),
                "modules_to_save": sorted({name.partition(".")[0] for name in beside}) or None,
            }
        )
    )
    return added


ATTENTION = tuple(f"model.layers.{i}.self_attn.{p}" for i in (0, 1) for p in ("q_proj", "v_proj"))
MLP = tuple(f"model.layers.{i}.mlp.down_proj" for i in (0, 1))


def make_base(folder: Path) -> tuple[Path, Tensors]:
    base = base_folder(folder)
    state = LlamaForCausalLM.from_pretrained(base).state_dict()
    return base, {name: tensor.clone() for name, tensor in state.items()}


def full_checkpoint(tmp_path: Path, kind: str) -> tuple[Path, Tensors, Tensors]:
    """Folder, backbone, and the modules beside it."""
    base, weights = make_base(tmp_path / "base")
    weights = {n: t + draw(*t.shape, seed=len(n), std=0.02) for n, t in weights.items()}
    beside = named("mm_projector", projector()) | named("binary_decision_head", head(kind, seed=9))
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    config_json(folder, base, binary_decision_head_type=kind)
    save_file(weights | beside, folder / "model.safetensors", metadata={"format": "pt"})
    torch.save(beside, folder / "mm_projector.bin")
    return folder, weights, beside


def split_checkpoint(tmp_path: Path, kind: str) -> tuple[Path, Tensors, Tensors]:
    """What is beside the backbone in a file of its own."""
    folder, weights, beside = full_checkpoint(tmp_path, kind)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder, weights, beside


def lora_checkpoint(tmp_path: Path, kind: str) -> tuple[Path, Tensors, Tensors]:
    """Two earlier rounds, and the last."""
    base, weights = make_base(tmp_path / "base")
    beside = named("mm_projector", projector()) | named("binary_decision_head", head(kind, seed=9))
    earlier = {name: tensor + 1 for name, tensor in beside.items() if "mm_proj" in name}
    folder = tmp_path / "checkpoint"
    rows = len(weights["lm_head.weight"])
    rounds = [
        lora_round(folder / "adapter_0", ATTENTION, earlier, seed=100),
        lora_round(folder / "adapter_1", (*ATTENTION, *MLP), earlier, seed=200),
        lora_round(folder, (*ATTENTION, "lm_head"), beside, seed=300, rows=rows),
    ]
    for added in rounds:
        for name, tensor in added.items():
            weights[name] = weights[name] + tensor
    config_json(
        folder, base, binary_decision_head_type=kind, training_args={"llm_train_mode": "lora"}
    )
    return folder, weights, beside
