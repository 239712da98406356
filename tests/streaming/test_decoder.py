from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from proassist_lit.errors import ConfigError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import ModelConfig
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.config import Kernels
from proassist_lit.streaming.decoder import HuggingFaceDecoder, LlamaDecoder, make_decoder

ROPES = {
    "default": {"rope_type": "default", "rope_theta": 1e4},
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}


def llama(rope: str = "default", *, num_kv_heads: int = 2, bias: bool = False) -> AssistantModel:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=11,
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=num_kv_heads,
        max_position_embeddings=4096,
        rope_parameters=ROPES[rope],
        initializer_range=0.5,
        attention_bias=bias,
        mlp_bias=bias,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = AssistantModel(LlamaForCausalLM(config), vision_size=4, config=ModelConfig())
    return shaken(model)


def shaken(model: AssistantModel) -> AssistantModel:
    with torch.no_grad():  # norms and biases start as ones and zeros, which hide mistakes
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.double().eval()


def qwen3() -> AssistantModel:
    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=11,
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rope_parameters=ROPES["default"],
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = AssistantModel(Qwen3ForCausalLM(config), vision_size=4, config=ModelConfig())
    return shaken(model)


def chunks(sizes: list[int]) -> list[Tensor]:
    torch.manual_seed(4)
    return [torch.randn(size, 24, dtype=torch.float64) for size in sizes]


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_llama_decoder_equals_hugging_face(rope: str, num_kv_heads: int) -> None:
    check_equal(llama(rope, num_kv_heads=num_kv_heads, bias=rope == "linear"))


def test_qwen3_decoder_equals_hugging_face() -> None:
    check_equal(qwen3())


def check_equal(model: AssistantModel) -> None:
    ours, theirs = LlamaDecoder(model), HuggingFaceDecoder(model)
    mine, other = KVCache(3, capacity=4), KVCache(3)
    with torch.inference_mode():
        for chunk in chunks([7, 1, 1, 30, 2, 1]):
            torch.testing.assert_close(ours(chunk, mine), theirs(chunk, other), atol=1e-11, rtol=0)
        assert len(mine) == len(other) == 42
        mine.crop(20), other.crop(20)
        again = chunks([3])[0]
        torch.testing.assert_close(ours(again, mine), theirs(again, other), atol=1e-11, rtol=0)


def test_llama_decoder_goes_past_its_table_of_rotations() -> None:
    model = llama()
    whole = torch.randn(1100, 24, dtype=torch.float64)
    cache = KVCache(3)
    decode = LlamaDecoder(model)
    with torch.inference_mode():
        decode(whole[:2], cache)  # a table of 1024 positions
        got = decode(whole[2:], cache)
        torch.testing.assert_close(got, model.hidden_states(whole[None])[0, -1])


def test_make_decoder_takes_hugging_face_for_other_backbones() -> None:
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1))
    model = AssistantModel(gpt2, vision_size=4, config=ModelConfig())
    assert isinstance(make_decoder(model), HuggingFaceDecoder)
    with pytest.raises(ConfigError, match=r"kernels=compiled.*not for gpt2; set stream\.kernels=a"):
        make_decoder(model, Kernels.COMPILED)
    assert isinstance(make_decoder(llama()), LlamaDecoder)


def test_make_decoder_takes_hugging_face_for_rotations_that_depend_on_length() -> None:
    model = llama()
    model.lm.config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    assert isinstance(make_decoder(model), HuggingFaceDecoder)


def test_make_decoder_takes_hugging_face_for_rotations_of_a_part_of_a_head() -> None:
    model = llama()
    model.lm.config.rope_parameters = {**ROPES["default"], "partial_rotary_factor": 0.5}
    assert isinstance(make_decoder(model), HuggingFaceDecoder)
