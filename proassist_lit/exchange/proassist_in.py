"""Reads checkpoints of ProAssist and of its DST extension."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from proassist_lit.config import RunConfig
from proassist_lit.data.config import DataConfig
from proassist_lit.errors import CheckpointError, ConfigError
from proassist_lit.exchange.description import Description
from proassist_lit.exchange.proassist_folder import Checkpoint, read_checkpoint
from proassist_lit.exchange.proassist_names import is_beside, to_ours
from proassist_lit.model.adapter_files import fold_adapter, read_adapter, untie
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.assistant_folder import head_tensors
from proassist_lit.model.config import Decision, HeadType, ModelConfig
from proassist_lit.model.pretrained import load_model, load_tokenizer
from proassist_lit.model.tensor_files import check_tensors
from proassist_lit.model.vocabulary import add_special_tokens
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind
from proassist_lit.sequence.chat import Chat, chat_format
from proassist_lit.streaming.config import Strategy, StreamConfig

_FEATURES = "google___siglip-so400m-patch14-384@-2"
_STRATEGIES = {
    "drop_all": Strategy.DROP_ALL,
    "drop_middle": Strategy.DROP_MIDDLE,
    "summarize_and_drop": Strategy.SUMMARIZE,
}
_TABLE = "model.embed_tokens.weight"
_REMEDY = "Fetch the checkpoint again; --base names its backbone if that is another one."


def read_proassist(folder: Path, base: str | None = None) -> tuple[AssistantModel, Description]:
    """The assistant of a checkpoint, its adapters merged.

    Args:
        folder: a Hugging Face Trainer's directory: an adapter or whole weights, ``config.json``,
            without which adapters of the DST extension are saved.
        base: the backbone, a folder or id, in the place of what the checkpoint names.

    Raises:
        CheckpointError: a file cannot be read, or the tensors are not those of the model; the
            message lists them.
        ConfigError: the backbone is not found.
    """
    found = read_checkpoint(folder)
    name = base or str(found.settings.get("llm_pretrained") or "")
    if not name:
        key = "llm_pretrained" if (folder / "config.json").is_file() else "base_model_name_or_path"
        raise ConfigError(f"{folder}: names no {key}; give its backbone with --base.")
    config = _configure(found, name)
    faults: list[str] = []  # of all files, told together
    lm = _backbone(found, name, faults)
    chat = Chat(
        chat_format(config.model.chat, config.model.separator), _tokenizer(found, name, config)
    )
    _check(faults, lambda: _check_rows(found, lm, chat))
    width = int(found.settings["vision_hidden_size"])
    with torch.device("meta") if faults else nullcontext():
        model = AssistantModel(lm, vision_size=width, config=config.model, chat=chat).float()
    tensors = to_ours(found.beside)
    _lengthen(tensors, model)
    _check(faults, lambda: check_tensors(str(folder), tensors, head_tensors(model), _REMEDY))
    if faults:
        raise CheckpointError("\n".join(faults))
    model.load_state_dict(tensors, strict=False)
    train = str((found.settings.get("training_args") or {}).get("llm_train_mode", ""))
    about = Description(
        config, width, train=train or ("lora" if found.is_adapter else "full"), origin=str(folder)
    )
    return model.eval(), about


def _prepared(split: str, num_tokens: int) -> str:
    """Which files ProAssist prepares: cut ones to train with, whole recordings to stream."""
    kind = "dialog-klg-sum_train_L4096" if split == "train" else f"dialog-klg_{split}_L0"
    return f"*/prepared/{kind}_I{num_tokens}.jsonl"


def _configure(found: Checkpoint, base: str) -> RunConfig:
    """Our settings of what the checkpoint says of itself."""
    settings = found.settings
    side = int(settings.get("img_patch_token_size") or 0)
    with_cls = bool(settings.get("use_img_cls_token", True))
    if not with_cls:
        raise CheckpointError(
            f"{found.folder}: was trained without the class token of a frame "
            "(use_img_cls_token=false), which no feature grid here has; it cannot be streamed."
        )
    extension = found.is_extension
    speaks = "speaking_decision_head" if extension else "binary_decision_head"
    by_head = any(name.startswith(f"{speaks}.") for name in found.beside)
    if not extension:
        by_head = bool(settings.get("use_binary_decision_head", by_head))
    by_token = Decision.OPENING_TOKEN if extension else Decision.SILENT_TOKEN
    # A shape may be named where no head is.
    mlp = by_head and "linear" not in str(settings.get("binary_decision_head_type", "linear"))
    separator = str(settings.get("img_sep_token") or "")
    strategy = str(settings.get("exceed_context_handling", "drop_all"))
    max_context = int(settings.get("max_seq_len") or 4096)
    max_context = max_context if max_context > 0 else 4096
    num_tokens = 1 if extension else side * side + 1
    train, val, test = (
        f"*/{split}*.json*" if extension else _prepared(split, num_tokens)
        for split in ("train", "val", "test")
    )
    return RunConfig(
        name=re.sub(r"\W+", "_", found.folder.resolve().name),
        data=DataConfig(
            source="dst" if extension else "proassist",
            root="processed_data",
            encoder=_FEATURES,
            train_files=train,
            val_files=val,
            test_files=test,
            num_tokens_per_img=num_tokens,
            max_seq_len=max_context,
        ),
        model=ModelConfig(
            backbone=base,
            chat="dst_ext" if extension else "llama3",
            separator="" if extension or separator == "none" else separator,
            decision=Decision.HEAD if by_head else by_token,
            head=HeadType.MLP if mlp else HeadType.LINEAR,
            dst=extension,
            dst_output_head=extension
            and any(name.startswith("dst_generation") for name in found.beside),
        ),
        objective=ObjectiveConfig(
            kind=ObjectiveKind.PER_TOKEN if by_head else ObjectiveKind.TOKEN_PROB
        ),
        stream=StreamConfig(
            strategy=_STRATEGIES.get(strategy, Strategy.DROP_ALL),
            max_context=max_context,
            reserve=min(512, max_context // 2),
        ),
    )


def _check(faults: list[str], check: Callable[[], None]) -> bool:
    """Whether ``check`` passes; else what it says is among ``faults``."""
    try:
        check()
    except CheckpointError as error:
        faults.append(str(error))
        return False
    return True


def _backbone(found: Checkpoint, base: str, faults: list[str]) -> Any:
    """The language model: whole from the folder, or the base with all rounds of adapters.

    With ``faults`` its shapes are right, and no more.
    """
    folder, matrices = found.folder, found.backbone
    if matrices and not found.is_adapter:
        return _whole(found, faults)
    lm = load_model(base)
    rounds = [path for path in folder.glob("adapter_*") if path.name[8:].isdecimal()]
    for earlier in sorted(rounds, key=lambda path: int(path.name[8:])):
        tensors = {n: t for n, t in read_adapter(earlier).items() if not is_beside(n)}
        if not _check(faults, partial(fold_adapter, lm, earlier, tensors)):
            return lm
    own = lm.get_input_embeddings().weight  # of both matrices, where they are tied
    table, head = matrices.get(_TABLE, own), matrices.get("lm_head.weight", own)
    if table.shape == head.shape and not torch.equal(table.to(head.dtype), head):
        untie(lm)  # trained whole, each by itself
    for grown in (tensor for name, tensor in matrices.items() if "embed_tokens" in name):
        lm.resize_token_embeddings(len(grown), mean_resizing=False)
    own = lm.state_dict()
    wanted = {name: own[name] for name in matrices if name in own}
    if _check(faults, lambda: check_tensors(str(folder), matrices, wanted, _REMEDY)):
        lm.load_state_dict(matrices, strict=False)
    if found.is_adapter:
        _check(faults, lambda: fold_adapter(lm, folder, found.additions))
    return lm


def _check_rows(found: Checkpoint, lm: Any, chat: Chat) -> None:
    """The format's special tokens have rows; those that training drew anew are in no backbone."""
    grown = [len(tensor) for name, tensor in found.backbone.items() if name == _TABLE]
    num_rows = max(int(lm.get_input_embeddings().num_embeddings), *grown, 0)
    tokens = chat.format.special_tokens
    ids = zip(tokens, chat.tokenizer.convert_tokens_to_ids(list(tokens)), strict=True)
    lacking = [f"{token} ({index})" for token, index in ids if index >= num_rows]
    if lacking:
        raise CheckpointError(
            f"{found.folder}: 1 missing: {_TABLE} with rows for {', '.join(lacking)}; there are "
            f"{num_rows}. Every training draws these anew, and peft leaves them out where it "
            "cannot look the backbone up: save the adapter there with save_embedding_layers=True, "
            "or give a backbone that has them with --base."
        )


def _whole(found: Checkpoint, faults: list[str]) -> Any:
    known = {*LlamaConfig().to_dict(), "rope_theta", "rope_scaling"}
    config = LlamaConfig.from_dict({k: v for k, v in found.settings.items() if k in known})
    with torch.device("meta"):  # shapes only
        shapes = LlamaForCausalLM(config)
    wanted = shapes.state_dict()
    if config.tie_word_embeddings:
        wanted.pop("lm_head.weight")
        found.backbone.pop("lm_head.weight", None)
    if not _check(
        faults, lambda: check_tensors(str(found.folder), found.backbone, wanted, _REMEDY)
    ):
        return shapes
    return LlamaForCausalLM.from_pretrained(
        None, config=config, state_dict=found.backbone, dtype=torch.float32
    )


def _tokenizer(found: Checkpoint, base: str, config: RunConfig) -> Any:
    """The checkpoint's own tokenizer, else the backbone's with the tokens that were added."""
    if (found.folder / "tokenizer_config.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(found.folder)
    else:
        tokenizer = load_tokenizer(base)
    if found.is_extension:  # it adds them in this order
        missing = [t for t in ("<image>", "[DST]", "[ASST]") if t not in tokenizer.get_vocab()]
        tokenizer.add_special_tokens(
            {"extra_special_tokens": missing}, replace_extra_special_tokens=False
        )
    add_special_tokens(tokenizer, chat_format(config.model.chat, config.model.separator))
    return tokenizer


def _lengthen(tensors: dict[str, Tensor], model: AssistantModel) -> None:
    """Give the output matrix of updates a row for every token.

    The extension makes it before it adds its tokens. The rows it lacks become copies of the first
    one, which wins against its equals, so that they are never written.
    """
    name = "dst_output_head.weight"
    if name in tensors and model.dst_output_head is not None:
        missing = model.dst_output_head.out_features - len(tensors[name])
        if 0 < missing <= 8:
            tensors[name] = torch.cat([tensors[name], tensors[name][:1].expand(missing, -1)])
