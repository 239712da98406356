from __future__ import annotations

from typing import Any

import pytest
import torch

from proassist_lit.errors import ConfigError
from proassist_lit.model.suitability import check_backbone, context_limit
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.decoder import HuggingFaceDecoder, LlamaDecoder, make_decoder
from tests.model.tiny_lms import (
    CHUNKS,
    MAX_POSITIONS,
    WINDOW,
    assistant,
    causal_lm,
    check_gradients,
    check_stream,
    embeddings,
)

SLIDING = {"sliding_window": WINDOW}
ALTERNATING = {**SLIDING, "layer_types": ["sliding_attention", "full_attention"]}
GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": MAX_POSITIONS, "n_inner": 20}
FLOAT32_INSIDE = 1e-5
"""For models whose attention or positions go through float32 whatever the type of the weights."""

EXACT: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral_sliding": ("Mistral", SLIDING),
    "qwen2": ("Qwen2", {}),
    "qwen2_sliding": ("Qwen2", {**ALTERNATING, "use_sliding_window": True}),
    "qwen3": ("Qwen3", {"head_dim": 8}),
    "qwen3_sliding": ("Qwen3", {"head_dim": 8, **ALTERNATING, "use_sliding_window": True}),
    "gemma": ("Gemma", {"head_dim": 8}),
    "gemma3": ("Gemma3Text", {"head_dim": 8, **ALTERNATING}),
    "phi": ("Phi", {}),
    "phi3": ("Phi3", {}),
    "gpt_neox": ("GPTNeoX", {}),
    "gpt2": ("GPT2", GPT),
    "opt": ("OPT", {"ffn_dim": 20, "word_embed_proj_dim": 16}),
    "olmo3": ("Olmo3", ALTERNATING),
    "granite": ("Granite", {"logits_scaling": 3.0, "embedding_multiplier": 2.0}),
    "cohere2": ("Cohere2", {"head_dim": 8, **ALTERNATING, "logit_scale": 0.1}),
    "smollm3": ("SmolLM3", {}),
    "stablelm": ("StableLm", {}),
}  # fmt: skip
ROUNDED: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": ("Gemma2", {"head_dim": 8, **ALTERNATING, "final_logit_softcapping": 2.0}),
    "bloom": ("Bloom", {"n_head": 2, "n_layer": 2}),
    "gptj": ("GPTJ", {**GPT, "rotary_dim": 4}),
}
TABLE = {**EXACT, **ROUNDED}
OURS = {"llama", "mistral", "qwen2", "qwen3"}
LEARNED = {"gpt2", "opt", "gptj"}


@pytest.mark.parametrize("name", TABLE)
def test_stream_equals_one_forward(name: str) -> None:
    model = assistant(causal_lm(TABLE[name][0], **TABLE[name][1]))
    atol = FLOAT32_INSIDE if name in ROUNDED else 1e-9

    check_stream(model, HuggingFaceDecoder(model), atol=atol)
    assert isinstance(make_decoder(model), LlamaDecoder) == (name in OURS)
    if name in OURS:
        check_stream(model, LlamaDecoder(model), atol=1e-9)


@pytest.mark.parametrize("name", TABLE)
def test_gradient_reaches_every_weight(name: str) -> None:
    check_gradients(assistant(causal_lm(TABLE[name][0], **TABLE[name][1])))


@pytest.mark.parametrize("name", TABLE)
def test_logits_are_hugging_faces(name: str) -> None:
    lm = causal_lm(TABLE[name][0], **TABLE[name][1])
    check_backbone(name, lm, lm)
    model, ids = assistant(lm), torch.arange(12)[None]
    with torch.no_grad():
        ours = model.lm_logits(model.hidden_states(model.embed_tokens(ids)))
        torch.testing.assert_close(ours, lm(input_ids=ids).logits, atol=1e-9, rtol=0)


def test_a_window_is_kept_though_the_cache_holds_more() -> None:
    wide = assistant(causal_lm("Mistral", sliding_window=None))
    narrow = assistant(causal_lm("Mistral", **SLIDING))
    narrow.lm.load_state_dict(wide.lm.state_dict())
    last = []
    for model in (wide, narrow):
        cache, decode = KVCache(2), HuggingFaceDecoder(model)
        with torch.no_grad():
            last.append([decode(chunk, cache) for chunk in embeddings().split(CHUNKS)])

    assert not torch.allclose(last[0][-1], last[1][-1])


@pytest.mark.parametrize("name", sorted(LEARNED))
def test_learned_positions_end_with_an_error_that_names_them(name: str) -> None:
    model = assistant(causal_lm(TABLE[name][0], **TABLE[name][1]))
    decode, cache = HuggingFaceDecoder(model), KVCache(2)
    with torch.no_grad():
        decode(embeddings(MAX_POSITIONS), cache)  # the last position is still there
        with pytest.raises(ConfigError, match=r"table of positions .* 64 tokens, got 65; lower"):
            decode(embeddings(1), cache)
        with pytest.raises(ConfigError, match=r"got 65; lower stream.max_context"):
            model.hidden_states(embeddings(MAX_POSITIONS + 1)[None])


def test_models_with_rotary_positions_or_none_have_no_limit() -> None:
    free = sorted(set(TABLE) - LEARNED)
    assert [context_limit(causal_lm(TABLE[n][0], **TABLE[n][1])) for n in free] == [None] * len(
        free
    )


ROTATIONS: dict[str, tuple[str, dict[str, Any], int]] = {
    "dynamic": ("Llama", {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, 64),
    "longrope": (
        "Phi3",
        {
            "rope_type": "longrope", "rope_theta": 1e4, "factor": 1.6,
            "short_factor": [1.0] * 4, "long_factor": [3.0] * 4,
        },
        40,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROTATIONS)
def test_rotations_that_change_with_the_length_are_refused_where_they_change(name: str) -> None:
    kind, rope, limit = ROTATIONS[name]
    start = {"original_max_position_embeddings": limit} if kind == "Phi3" else {}
    model = assistant(causal_lm(kind, rope_parameters=rope, **start))
    decode = HuggingFaceDecoder(model)
    check_stream(model, decode)  # shorter than the limit
    whole = embeddings(limit + 8)
    cache = KVCache(2)
    with torch.no_grad():
        decode(whole[:limit], cache)
        with pytest.raises(ConfigError, match=rf"{name}\) that changes after {limit} tokens, got"):
            decode(whole[limit:], cache)

        model.context_limit = None  # what the error keeps from happening
        got = decode(whole[limit:], cache)
        assert not torch.allclose(got, model.hidden_states(whole[None])[0, -1], atol=1e-4)
