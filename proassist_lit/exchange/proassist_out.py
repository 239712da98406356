"""Writes an assistant in the layout of ProAssist, or of its DST extension."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from proassist_lit.atomic import write_text
from proassist_lit.errors import ConfigError
from proassist_lit.exchange.description import Description
from proassist_lit.exchange.proassist_names import to_theirs
from proassist_lit.exchange.write import new_folder, write_backbone
from proassist_lit.model.adapter_files import read_json, write_adapter
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.assistant_folder import head_tensors
from proassist_lit.model.config import Decision, HeadType
from proassist_lit.model.lora import has_lora
from proassist_lit.model.new_rows import EmbeddingRows
from proassist_lit.streaming.config import Strategy

_STRATEGIES = {
    Strategy.DROP_MIDDLE: "drop_middle",
    Strategy.SUMMARIZE: "summarize_and_drop",
}


def write_proassist(
    target: Path, model: AssistantModel, about: Description, *, merge: bool
) -> None:
    """Write a folder that ProAssist reads; with a dst head, its DST extension.

    Args:
        target: the folder; it must not exist.
        model: its backbone must be a Llama.
        about: what is known of it.
        merge: whether low-rank additions go into the weights; otherwise they are the adapter.

    Raises:
        ConfigError: the folder exists, or the reference has no such model.
    """
    _check(model, about, merge=merge)
    heads = to_theirs(head_tensors(model), dst=about.config.model.dst)
    with new_folder(target) as folder:
        if has_lora(model.lm) and not merge:
            write_adapter(model.lm, folder, about.config.model.backbone, heads)
        else:
            write_backbone(model.lm, folder)
            torch.save({name: tensor.cpu() for name, tensor in heads.items()},
                       folder / "mm_projector.bin")  # fmt: skip
        assert model.chat is not None
        model.chat.tokenizer.save_pretrained(folder)
        settings, path = _settings(model, about, merge=merge, heads=heads), folder / "config.json"
        if path.is_file():  # of the backbone: an output matrix that was added to is tied no more
            settings["tie_word_embeddings"] = read_json(path)["tie_word_embeddings"]
        write_text(path, json.dumps(settings, indent=2) + "\n")


def _check(model: AssistantModel, about: Description, *, merge: bool) -> None:
    config = about.config
    faults = []
    if model.lm.config.model_type != "llama":
        faults.append(f"the backbone is a {model.lm.config.model_type}, and must be a llama")
    chats = ("dst_ext",) if config.model.dst else ("llama3",)
    if config.model.chat not in chats:
        faults.append(f"model.chat is {config.model.chat}, and must be {' or '.join(chats)}")
    if config.model.decision is Decision.INFORMATIVE_RELEVANCE:
        faults.append("model.decision is informative_relevance, two heads where theirs has one")
    if config.model.dst:  # of which the extension has no settings: they would come back as its own
        if config.data.num_tokens_per_img != 1:
            count = config.data.num_tokens_per_img
            faults.append(f"data.num_tokens_per_img is {count}, and must be 1 with model.dst")
        if config.model.separator:
            shown = repr(config.model.separator)
            faults.append(f"model.separator is {shown}, and must be empty with model.dst")
        if config.model.decision is Decision.SILENT_TOKEN:
            faults.append(
                "model.decision is silent_token, which theirs reads as opening_token with model.dst"
            )
    as_adapter = has_lora(model.lm) and not merge
    if as_adapter and isinstance(model.lm.get_input_embeddings(), EmbeddingRows):
        faults.append("rows of new tokens were trained beside the adapter; add --merge")
    if as_adapter and (config.model.is_from_scratch or config.model.init_from):
        faults.append("the adapter's backbone cannot be had again from a hub; add --merge")
    if faults:
        raise ConfigError(
            f"--layout proassist: {'; '.join(faults)}. Or write it with --layout huggingface."
        )


def _settings(
    model: AssistantModel, about: Description, *, merge: bool, heads: dict[str, Tensor]
) -> dict[str, Any]:
    """The reference's ``config.json``: a Llama's, and its own keys."""
    config = about.config
    lora = has_lora(model.lm) and not merge
    out = dict(model.lm.config.to_dict())
    rope = dict(out["rope_parameters"])  # which transformers 4 does not know
    out["rope_theta"] = rope.pop("rope_theta")
    out["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    by_head = config.model.decision is Decision.HEAD
    side = round((config.data.num_tokens_per_img - 1) ** 0.5)
    assert model.chat is not None
    out |= {
        "llm_pretrained": config.model.backbone,
        "vision_hidden_size": about.vision_size,
        "use_img_cls_token": True,
        "img_patch_token_size": side,
        "img_sep_token": model.chat.separator,
        "img_token": model.chat.format.image,
        "img_token_id": model.chat.image_id,
        "max_seq_len": config.data.max_seq_len,
        "exceed_context_handling": _STRATEGIES.get(config.stream.strategy, "drop_all"),
        "binary_decision_head_type": "linear" if config.model.head is HeadType.LINEAR else "mlp",
        "binary_loss_weight": config.objective.speaking_binary_weight,
        "w2t_logit_weight": config.objective.silent_logit_weight,
        "training_args": {"llm_train_mode": "lora" if lora else "full"},
    }
    if not config.model.dst:
        return out | {
            "architectures": ["ProActLlamaForCausalLM"], "use_binary_decision_head": by_head
        }  # fmt: skip
    ids = model.chat.tokenizer.convert_tokens_to_ids(["[DST]", "[ASST]"])
    return out | {
        "architectures": ["DSTProActLlamaForCausalLM"],
        "use_binary_decision_heads": by_head,
        "use_separate_generation_heads": "dst_generation_head.weight" in heads,
        "dst_gen_token_id": ids[0],
        "asst_gen_token_id": ids[1],
    }
