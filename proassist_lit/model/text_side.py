"""The text side of a vision-language model: its language model and output matrix, nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from proassist_lit.errors import ConfigError


class TextSide(PreTrainedModel):  # type: ignore[misc]
    """Decoder and output matrix under the names of a Hugging Face causal language model.

    It can be saved, loaded and resized like one; a Llama inside (SmolVLM) is saved as a Llama.
    Frames reach it as embeddings at plain positions, so the rows of a multi-axis rotation
    (Qwen-VL's time, height and width) are always equal.

    Args:
        config: the text configuration of the vision-language model.

    Source: SmolVLM, arXiv:2504.05299; Qwen2-VL (multi-axis rotation), arXiv:2409.12191.
    """

    base_model_prefix = "model"
    _supports_sdpa = True

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.model = AutoModel.from_config(config)
        table = self.model.get_input_embeddings()
        name = next(name for name, module in self.model.named_modules() if module is table)
        self._tied_weights_keys = {"lm_head.weight": f"model.{name}.weight"}
        self.lm_head = nn.Linear(table.embedding_dim, table.num_embeddings, bias=False)
        self.post_init()


def take_text_side(model: Any) -> TextSide:
    """Text side of a vision-language model; its modules are moved, not copied.

    Once the caller lets go of ``model``, its vision tower is freed.

    Args:
        model: Hugging Face model with a ``text_config``: ``SmolVLMForConditionalGeneration``,
            ``Qwen2VLForConditionalGeneration``, ...

    Raises:
        ConfigError: no decoder or no output matrix can be told from the rest of the model.
    """
    config = model.config.get_text_config()
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    if head is None or decoder is model or type(decoder.config) is not type(config):
        raise ConfigError(
            f"model.backbone: the text side of {type(model).__name__} cannot be told from its "
            "vision side; give a vision-language model of the kind of SmolVLM or Qwen-VL, or a "
            "causal language model."
        )
    # Vision-language models say it of the whole; saving, loading and resizing ask the text side.
    config.tie_word_embeddings = head.weight is decoder.get_input_embeddings().weight
    with torch.device("meta"):  # shapes only: the weights come from the model
        side = TextSide(config)
    side.model, side.lm_head = decoder, head
    return side
