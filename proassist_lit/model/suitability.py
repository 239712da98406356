"""Which Hugging Face models can be a backbone, said before anything is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import DynamicCache
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

from proassist_lit.errors import ConfigError
from proassist_lit.model.cache_argument import with_cache
from proassist_lit.model.logits import finish_logits

REMEDY = (
    "give a causal language model (a Llama, Qwen, Gemma, Mistral, Phi, GPT-NeoX, ...), a "
    "vision-language model with one inside (SmolVLM, Qwen-VL), tiny or smollm2"
)

_ATTENTION = {"full_attention", "sliding_attention"}
_MAX_ERROR, _MAX_ERROR_16_BITS = 0.01, 0.1
"""Largest difference of two ways to compute the same numbers, relative to the largest of them.

In 16 bits, which weights in 4 bits are computed in as well, products of one row and of many are
rounded apart: random Llamas of 32 layers differ by up to 0.025 in bfloat16. A cache that has lost
a single key makes 0.13 and more in them.
"""


def check_config(backbone: str, config: Any) -> None:
    """Refuse what cannot be a backbone by its kind, before its weights are read.

    Args:
        backbone: as the user named it, for the message.
        config: Hugging Face configuration.

    Raises:
        ConfigError: an encoder-decoder, an encoder, or layers that keep a running state.
    """
    text = config.get_text_config()
    kind = None
    if config.is_encoder_decoder or text.is_encoder_decoder:
        kind = "an encoder-decoder"
    elif type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        kind = "an encoder, in which every token sees those after it"
    other = sorted(set(getattr(text, "layer_types", None) or ()) - _ATTENTION)
    if kind is None and other:
        kind = f"a model with layers ({', '.join(other)}) whose memory cannot be cut back or copied"
    if kind is not None:
        raise ConfigError(f"model.backbone={backbone!r} ({config.model_type}) is {kind}; {REMEDY}.")


@torch.no_grad()
def check_backbone(backbone: str, original: Any, lm: Any) -> None:
    """Run a few tokens; refuse a backbone that would not compute here what its authors meant.

    Args:
        backbone: as the user named it, for the message.
        original: Hugging Face model, as loaded; in evaluation mode.
        lm: the same, or its text side.

    Raises:
        ConfigError: embeddings, hidden states and output matrix are not of one width; or the
            logits are not those of ``original``; or a cache changes the result.
    """
    where = f"model.backbone={backbone!r} ({type(original).__name__}) cannot be streamed:"
    table, output = lm.get_input_embeddings(), lm.get_output_embeddings()
    widths = (table.embedding_dim, lm.config.hidden_size, getattr(output, "in_features", None))
    if len(set(widths)) != 1:
        raise ConfigError(
            f"{where} its embeddings, hidden states and output matrix are {widths[0]}, {widths[1]} "
            f"and {widths[2]} wide and should be one; {REMEDY}."
        )
    ids = torch.arange(1, 6, device=table.weight.device)[None] % table.num_embeddings
    decoder, cache = lm.get_decoder(), DynamicCache()
    embeds = table(ids)
    try:
        theirs = original(input_ids=ids, use_cache=False).logits
        whole = decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state
        parts = [
            decoder(
                inputs_embeds=part, use_cache=True, **with_cache(decoder, cache)
            ).last_hidden_state
            for part in embeds.split([3, 1, 1], dim=1)
        ]
    except Exception as error:  # whatever a foreign forward may raise
        raise ConfigError(f"{where} {type(error).__name__}: {error}; {REMEDY}.") from error
    most = _MAX_ERROR if torch.finfo(whole.dtype).bits > 16 else _MAX_ERROR_16_BITS
    if not _close(torch.cat(parts, dim=1), whole, most):
        raise ConfigError(f"{where} with a cache it computes something else; {REMEDY}.")
    if not _close(finish_logits(output(whole), lm.config), theirs, most):
        raise ConfigError(
            f"{where} its logits are not its output matrix times its last hidden states; {REMEDY}."
        )


def _close(ours: torch.Tensor, theirs: torch.Tensor, most: float) -> bool:
    return bool((ours - theirs).abs().max() <= most * theirs.abs().max())


def context_limit(lm: Any) -> tuple[int, str] | None:
    """Most tokens that a backbone can read, and why; None where nothing limits it.

    Args:
        lm: Hugging Face causal language model or ``TextSide``.

    Returns:
        The limit in tokens, and what sets it: a table of positions, or a rotation that changes
        with the length, so that keys rotated before would no longer fit.
    """
    config = lm.config
    most = getattr(config, "max_position_embeddings", None)
    if most is None:
        return None
    rope = getattr(config, "rope_parameters", None) or {}
    for part in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        kind = str(part.get("rope_type", ""))
        if "dynamic" in kind:
            return int(most), f"a rotation ({kind}) that changes after"
        if kind == "longrope":
            start = part.get("original_max_position_embeddings") or most
            return int(start), f"a rotation ({kind}) that changes after"
    tables = [
        (name, module.weight)
        for name, module in lm.get_decoder().named_modules()
        if isinstance(module, nn.Embedding) and module is not lm.get_input_embeddings()
    ]
    for name, values in (*tables, *lm.get_decoder().named_buffers()):
        if values.ndim == 2 and 0 <= values.shape[0] - most <= 2:  # OPT keeps two rows for itself
            return int(most), f"a table of positions ({name}) for"
    return None
