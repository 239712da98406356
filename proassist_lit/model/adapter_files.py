"""Low-rank additions as files of the library peft, and the way back into plain weights."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from proassist_lit.atomic import write_text
from proassist_lit.errors import CheckpointError
from proassist_lit.model.lora import ADAPTER, inject
from proassist_lit.model.new_rows import EmbeddingRows, OutputRows
from proassist_lit.model.tensor_files import check_tensors, read_tensors

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""Files of an adapter."""

BESIDE_ADDITIONS = ".base_layer."
"""In names of what additions are beside: of an output matrix that is added to, peft saves it, too,
as it might not be that of the backbone any more."""

_BEFORE = ".original_module."
"""In names of what a matrix was before it was trained whole: of no use, but peft may save it."""

_PREFIX, _ROWS = "base_model.model.", ".token_adapter.trainable_tokens_delta"


def adapter_base(folder: str | Path) -> str | None:
    """What the adapter in ``folder`` is added to, a folder or id; None if there is no adapter.

    Raises:
        CheckpointError: its configuration cannot be read, or names nothing.
    """
    path = Path(folder).expanduser() / ADAPTER_CONFIG
    if not path.is_file():
        return None
    base = read_json(path).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise CheckpointError(
            f"{path}: names no base_model_name_or_path; write there what the adapter was trained "
            "over."
        )
    return base


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}; fetch the file again.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: is no JSON object; fetch the file again.")
    return data


def read_adapter(folder: Path) -> dict[str, Tensor]:
    """Tensors of the adapter in ``folder``, as the backbone's modules are called.

    Raises:
        CheckpointError: they cannot be read.
    """
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file() and (folder / "adapter_model.bin").is_file():
        path = folder / "adapter_model.bin"
    return {
        name.removeprefix(_PREFIX).replace(".modules_to_save.", "."): tensor
        for name, tensor in read_tensors(path).items()
        if _BEFORE not in name
    }


@torch.no_grad()
def fold_adapter(lm: Any, folder: Path, tensors: Mapping[str, Tensor] | None = None) -> None:
    """Add an adapter to the weights themselves.

    Args:
        lm: the backbone that it was trained over; changed in place.
        folder: of the adapter.
        tensors: its tensors, by names of ``lm``'s modules; None to read them. A matrix among them
            that is added to wins over that of ``lm``.

    Raises:
        CheckpointError: the configuration is no LoRA, or the tensors are not those that it
            describes; the message lists them.
    """
    tensors = dict(read_adapter(folder) if tensors is None else tensors)
    settings = read_json(folder / ADAPTER_CONFIG)
    _untie(lm, settings)
    rows = settings.get("trainable_token_indices") or {}
    wanted = _add(lm, folder, settings)
    wanted |= {
        name: parameter
        for name, parameter in lm.named_parameters()
        if BESIDE_ADDITIONS in name and name in tensors
    }
    for name, ids in rows.items():
        path = next(n for n, _ in lm.named_modules() if n.endswith(name))
        wanted[path + _ROWS] = lm.get_submodule(path).weight[torch.tensor(ids)]
    check_tensors(str(folder), tensors, wanted, "Fetch or write the adapter again.")
    for name, tensor in wanted.items():
        if not name.endswith(_ROWS):
            tensor.copy_(tensors[name])
    for name, ids in rows.items():
        path = next(n for n, _ in lm.named_modules() if n.endswith(name))
        weight = lm.get_submodule(path).weight
        weight[torch.tensor(ids)] = tensors[path + _ROWS].to(weight.dtype)
    for name, module in list(lm.named_modules()):
        if isinstance(module, LoraLayer):
            layer: Any = module
            layer.merge()
            parent, _, last = name.rpartition(".")
            setattr(lm.get_submodule(parent), last, layer.get_base_layer())
    del lm.peft_config
    lm.requires_grad_(True)


def _add(lm: Any, folder: Path, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Add what ``settings`` describe; return its tensors, by the names that files have."""
    if settings.get("peft_type") != "LORA":
        raise CheckpointError(
            f"{folder / ADAPTER_CONFIG}: peft_type is {settings.get('peft_type')!r}; only LORA can "
            "be read."
        )
    try:
        with warnings.catch_warnings():  # of keys that a newer peft wrote
            warnings.simplefilter("ignore")
            config = peft.LoraConfig.from_pretrained(str(folder))
        config.modules_to_save = config.trainable_token_indices = None
        config.lora_dropout = 0.0
        inject(lm, config)
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{folder / ADAPTER_CONFIG}: does not fit the backbone: {error}. Name the one that it "
            "was trained over."
        ) from error
    return {
        name.replace(f".{ADAPTER}.", ".").removesuffix(f".{ADAPTER}"): parameter
        for name, parameter in lm.named_parameters()
        if ".lora_" in name
    }


def _untie(lm: Any, settings: Mapping[str, Any]) -> None:
    """Give the output matrix weights of its own if it alone is added to."""
    head = lm.get_output_embeddings()
    name = next(name for name, module in lm.named_modules() if module is head)
    if name in (settings.get("target_modules") or ()):
        untie(lm)


def untie(lm: Any) -> None:
    """Give the output matrix weights of its own, equal to those of the embeddings."""
    table, head = lm.get_input_embeddings(), lm.get_output_embeddings()
    if head.weight is table.weight:
        head.weight = nn.Parameter(table.weight.detach().clone())
        lm.config.tie_word_embeddings = False


def write_adapter(lm: Any, folder: Path, base: str, beside: Mapping[str, Tensor]) -> None:
    """Write what is trained of ``lm`` as an adapter that peft can read.

    Args:
        lm: a backbone with low-rank additions.
        folder: to write to.
        base: the backbone that they were trained over, a folder or id.
        beside: further tensors, of modules that peft shall save whole.
    """
    settings = lm.peft_config[ADAPTER].to_dict()
    settings |= {
        "base_model_name_or_path": base,
        "inference_mode": True,
        "target_modules": sorted(settings["target_modules"]),
        "modules_to_save": sorted({name.partition(".")[0] for name in beside}) or None,
    }
    tensors, rows, seen = dict(beside), {}, set[int]()
    for name, module in lm.named_modules():
        if isinstance(module, EmbeddingRows | OutputRows) and id(module.rows) not in seen:
            seen.add(id(module.rows))
            tensors[name + _ROWS] = module.rows
            rows[name.rpartition(".")[2]] = module.ids.tolist()
    for name, parameter in lm.named_parameters():
        if ".lora_" in name:
            tensors[name.replace(f".{ADAPTER}.", ".")] = parameter
    settings["trainable_token_indices"] = rows or None
    text = json.dumps(settings, indent=2, sort_keys=True, default=str)
    write_text(folder / ADAPTER_CONFIG, text + "\n")
    save_file(
        {_PREFIX + name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()},
        folder / ADAPTER_WEIGHTS,
        metadata={"format": "pt"},
    )
