from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from proassist_lit.errors import ConfigError
from proassist_lit.model.backbone import build_backbone, build_tokenizer
from proassist_lit.model.config import ModelConfig, TinyConfig
from proassist_lit.model.suitability import check_backbone
from proassist_lit.model.text_side import TextSide, take_text_side
from proassist_lit.streaming.decoder import HuggingFaceDecoder, LlamaDecoder, make_decoder
from tests.model.tiny_lms import (
    BASE,
    LENGTH,
    VISION_LMS,
    assistant,
    check_gradients,
    check_stream,
    embeddings,
    vision_lm,
)


def save(model: torch.nn.Module, folder: Path) -> ModelConfig:
    """Model and tokenizer in a folder, as a vision-language model comes."""
    tiny = TinyConfig(vocab_size=300, num_layers=2, hidden_size=16, num_heads=2)
    tokenizer = build_tokenizer(ModelConfig(tiny=tiny), lambda: ["Now slice it. S1->start"])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelConfig(backbone=str(folder), chat="compact")


@pytest.mark.parametrize("name", VISION_LMS)
def test_text_side_streams_as_one_forward(name: str) -> None:
    model = assistant(take_text_side(vision_lm(name)))

    check_stream(model, HuggingFaceDecoder(model))
    if name == "Gemma3":  # its window
        assert isinstance(make_decoder(model), HuggingFaceDecoder)
    else:
        assert isinstance(make_decoder(model), LlamaDecoder)
        check_stream(model, make_decoder(model))


@pytest.mark.parametrize("name", VISION_LMS)
def test_text_side_gives_the_whole_models_logits(name: str) -> None:
    original = vision_lm(name).double()
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        want = original(input_ids=ids).logits
        model = assistant(take_text_side(original))
        got = model.lm_logits(model.hidden_states(model.embed_tokens(ids)))

    torch.testing.assert_close(got, want, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["Qwen2VL", "Qwen2_5_VL", "Qwen3VL"])
def test_rows_of_the_rotation_are_equal_plain_positions(name: str) -> None:
    model = assistant(take_text_side(vision_lm(name)))
    rows = torch.arange(LENGTH).expand(3, 1, LENGTH)
    frames = rows.clone()
    frames[1:, :, 4:8] = torch.tensor([[[4, 4, 5, 5]], [[4, 5, 4, 5]]])  # a picture's own grid
    decoder = model.lm.get_decoder()
    with torch.no_grad():
        got = model.hidden_states(embeddings()[None])
        want, other = (
            decoder(inputs_embeds=embeddings()[None], position_ids=ids, use_cache=False)[0]
            for ids in (rows, frames)
        )

    torch.testing.assert_close(got, want, atol=1e-12, rtol=0)
    assert not torch.allclose(got, other, atol=1e-4)  # the rows are read


@pytest.mark.parametrize("name", VISION_LMS)
def test_gradient_reaches_every_weight_of_the_text_side(name: str) -> None:
    check_gradients(assistant(take_text_side(vision_lm(name))))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", VISION_LMS)
def test_backbone_of_a_folder_is_the_text_side_alone(name: str, tied: bool, tmp_path: Path) -> None:
    original = vision_lm(name, tied=tied)
    lm = build_backbone(config := save(original, tmp_path), build_tokenizer(config, list))

    assert isinstance(lm, TextSide)
    assert not any("vis" in key or "connector" in key for key in lm.state_dict())
    assert (lm.get_output_embeddings().weight is lm.get_input_embeddings().weight) == tied
    assert (lm.config.hidden_size, lm.config.num_hidden_layers) == (16, 2)
    with torch.no_grad():
        got = lm.get_decoder()(inputs_embeds=embeddings()[None].float()).last_hidden_state
        want = original.get_decoder()(inputs_embeds=embeddings()[None].float()).last_hidden_state
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", ["Idefics3", "Qwen2VL", "Qwen3VL"])
def test_text_side_is_saved_and_read_back(name: str, tied: bool, tmp_path: Path) -> None:
    lm = take_text_side(vision_lm(name, tied=tied))
    config = save(lm, tmp_path)
    lm.resize_token_embeddings(400)
    lm.save_pretrained(tmp_path)
    again = build_backbone(config, build_tokenizer(config, list))

    assert type(again) is (LlamaForCausalLM if name == "Idefics3" else TextSide)
    assert again.state_dict().keys() == lm.state_dict().keys()
    for key, value in lm.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=0, atol=0)
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) == tied


@pytest.mark.parametrize("name", VISION_LMS)
def test_vision_tower_is_freed(name: str) -> None:
    original = vision_lm(name)
    kept = {id(weight) for weight in take_text_side(original).parameters()}
    towers = [weakref.ref(w) for w in original.parameters() if id(w) not in kept]
    lm = take_text_side(original)
    del original
    gc.collect()

    assert len(towers) > 5
    assert not any(tower() is not None for tower in towers)
    assert all(weight.device.type == "cpu" for weight in lm.parameters())


def test_a_model_without_a_text_side_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"text side of LlamaForCausalLM cannot be told"):
        take_text_side(_pretending())


def _pretending() -> LlamaForCausalLM:
    model = LlamaForCausalLM(transformers.LlamaConfig(**BASE))
    model.get_decoder = lambda: model
    return model


def test_text_side_with_another_output_matrix_is_noticed() -> None:
    original = vision_lm("SmolVLM")
    lm = take_text_side(original)
    check_backbone("folder", original, lm)
    lm.lm_head = torch.nn.Linear(16, lm.lm_head.out_features, bias=False)

    with pytest.raises(ConfigError, match=r"'folder' \(SmolVLM.*its logits are not its output"):
        check_backbone("folder", original, lm)


def test_llama_text_side_is_read_by_hugging_face_alone(tmp_path: Path) -> None:
    take_text_side(vision_lm("SmolVLM")).save_pretrained(tmp_path)
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path)) is LlamaForCausalLM
