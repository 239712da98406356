"""Tiny random Hugging Face models, made from their own configuration classes."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import ModelConfig
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.decoder import Decoder

torch.set_num_threads(1)

WINDOW, MAX_POSITIONS = 7, 64
CHUNKS = [9, 1, 1, 12, 1, 8]
LENGTH = sum(CHUNKS)

BASE: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": MAX_POSITIONS,
    "initializer_range": 0.4,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
VISION = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
          "num_attention_heads": 1, "image_size": 8, "patch_size": 4}  # fmt: skip
QWEN_IDS = {"image_token_id": 3, "video_token_id": 4,
            "vision_start_token_id": 5, "vision_end_token_id": 6}  # fmt: skip
QWEN_VISION = {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "out_hidden_size": 16,
               "num_heads": 1, "patch_size": 4}  # fmt: skip


def causal_lm(name: str, **changes: Any) -> Any:
    """``LlamaForCausalLM`` for ``Llama`` and the like, in float32."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**BASE, **changes})
    return shaken(transformers.AutoModelForCausalLM.from_config(config))


def vision_lm(name: str, *, tied: bool = False) -> Any:
    """A vision-language model, in float32."""
    torch.manual_seed(0)
    text = dict(BASE)  # tying is said of the whole only, as in models on the hub
    if name in ("SmolVLM", "Idefics3"):
        options = {
            "text_config": {"model_type": "llama", **text},
            "vision_config": VISION, "scale_factor": 1, "image_token_id": 3, "pad_token_id": 0,
        }  # fmt: skip
    elif name == "Gemma3":
        text |= {"head_dim": 8, "sliding_window": WINDOW}
        text["layer_types"] = ["sliding_attention", "full_attention"]
        options = {
            "text_config": text, "vision_config": {"model_type": "siglip_vision_model", **VISION},
            "mm_tokens_per_image": 1, "image_token_index": 3, "boi_token_index": 4,
            "eoi_token_index": 5,
        }  # fmt: skip
    else:
        vision = dict(QWEN_VISION)
        if name == "Qwen2VL":
            vision = {"depth": 1, "embed_dim": 8, "hidden_size": 16, "num_heads": 1,
                      "mlp_ratio": 1, "patch_size": 4}  # fmt: skip
        elif name == "Qwen2_5_VL":
            vision["fullatt_block_indexes"] = [0]
        else:
            vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 4}
            text["head_dim"] = 8
        options = {"text_config": {**text, "rope_parameters": MROPE}, "vision_config": vision}
        options |= QWEN_IDS
    config = getattr(transformers, f"{name}Config")(**options, tie_word_embeddings=tied)
    return shaken(getattr(transformers, f"{name}ForConditionalGeneration")(config))


VISION_LMS = ["SmolVLM", "Idefics3", "Qwen2VL", "Qwen2_5_VL", "Qwen3VL", "Gemma3"]


@torch.no_grad()
def shaken(model: Any) -> Any:
    """Norms and biases start as ones and zeros, which hide mistakes."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def assistant(lm: Any) -> AssistantModel:
    """Assistant in float64 with untrained projector and heads."""
    torch.manual_seed(1)
    return AssistantModel(lm, vision_size=4, config=ModelConfig()).double().eval()


def embeddings(length: int = LENGTH, *, seed: int = 0) -> Tensor:
    """(T, D) float64, as words and frames would give them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(length, BASE["hidden_size"], generator=generator, dtype=torch.float64)


@torch.no_grad()
def check_stream(model: AssistantModel, decoder: Decoder, *, atol: float = 1e-9) -> None:
    """Chunks through a cache, cut back, forked and gone on with, equal whole forward passes."""
    one, other = embeddings(), embeddings(seed=1)
    ends = torch.tensor(CHUNKS).cumsum(0) - 1
    cache = KVCache(model.lm.config.num_hidden_layers, capacity=4)
    streamed = torch.stack([decoder(chunk, cache) for chunk in one.split(CHUNKS)])
    whole = model.hidden_states(one[None])[0]
    torch.testing.assert_close(streamed, whole[ends], atol=atol, rtol=0)
    assert len(cache) == LENGTH

    cache.crop(11)
    fork = cache.fork()
    again = decoder(other[:3], cache)
    turned = decoder(other[3:7], fork)
    for got, tail in ((again, other[:3]), (turned, other[3:7])):
        want = model.hidden_states(torch.cat([one[:11], tail])[None])[0, -1]
        torch.testing.assert_close(got, want, atol=atol, rtol=0)


def check_gradients(model: AssistantModel) -> None:
    """Words, frames, both heads and the vocabulary: something reaches every weight."""
    model.requires_grad_(True)
    words = model.embed_tokens(torch.arange(8))
    frames = model.project(embeddings(4)[:, :4])
    hidden = model.hidden_states(torch.cat([words, frames])[None])
    scores = [model.speak_head(hidden), model.dst_head(hidden), model.lm_logits(hidden)]
    sum(score.square().mean() for score in scores).backward()
    without = [
        name for name, weight in model.named_parameters()
        if weight.grad is None or not weight.grad.abs().sum() > 0
    ]  # fmt: skip
    assert without == []
