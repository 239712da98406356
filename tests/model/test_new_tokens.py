from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from proassist_lit.model.backbone import build_backbone, build_tokenizer
from proassist_lit.model.config import ModelConfig
from proassist_lit.sequence.chat import FORMATS, Chat, Role
from proassist_lit.streaming.decoder import make_decoder
from tests.model.folders import folder_of, plain_tokenizer, save_tokenizer
from tests.model.tiny_lms import assistant, causal_lm, check_stream, vision_lm


def test_tokens_that_exist_keep_their_ids_and_nothing_grows(tmp_path: Path) -> None:
    size = save_tokenizer(tmp_path)
    lm = causal_lm("Llama", vocab_size=size)
    config = folder_of(lm, tmp_path)
    before = AutoTokenizer.from_pretrained(tmp_path).get_vocab()
    tokenizer = build_tokenizer(config, list)

    assert tokenizer.get_vocab() == before
    again = build_backbone(config, tokenizer)
    assert again.get_input_embeddings().num_embeddings == size


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["Llama", "Phi", "SmolVLM"])
def test_new_special_tokens_get_rows_and_the_image_token_none(
    kind: str, tied: bool, tmp_path: Path
) -> None:
    lm = vision_lm(kind, tied=tied) if kind == "SmolVLM" else None
    lm = lm or causal_lm(kind, vocab_size=40, tie_word_embeddings=tied)
    lm.save_pretrained(tmp_path)
    plain_tokenizer(tmp_path, num_tokens := lm.get_input_embeddings().num_embeddings)
    config = ModelConfig(backbone=str(tmp_path), chat="chatml")
    tokenizer = build_tokenizer(config, list)
    again = build_backbone(config, tokenizer)

    chat = Chat(FORMATS["chatml"], tokenizer)  # every special token is one token
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>")]
    assert ids == [num_tokens, num_tokens + 1]
    assert chat.image_id == num_tokens + 2
    old_in, old_out = lm.get_input_embeddings(), lm.get_output_embeddings()
    new_in, new_out = again.get_input_embeddings(), again.get_output_embeddings()
    assert new_in.num_embeddings == new_out.out_features == num_tokens + 2
    assert again.config.vocab_size == num_tokens + 2
    assert (new_out.weight is new_in.weight) == tied
    pieces = tokenizer.encode("<|im_start|>", add_special_tokens=False, split_special_tokens=True)
    assert len(pieces) > 3
    assert max(pieces) < num_tokens
    for new, old in ((new_in.weight, old_in.weight), (new_out.weight, old_out.weight)):
        torch.testing.assert_close(new[:num_tokens], old, rtol=0, atol=0)
        torch.testing.assert_close(new[num_tokens], old[pieces].mean(0))
        assert not torch.equal(new[num_tokens], new[num_tokens + 1])
    if kind == "Phi":
        torch.testing.assert_close(new_out.bias[num_tokens], old_out.bias[pieces].mean())
    check_stream(model := assistant(again), make_decoder(model))
    assert model.embed_tokens(torch.tensor([chat.image_id])).isfinite().all()


@pytest.mark.parametrize("chat", FORMATS)
def test_every_format_fits_a_backbone_that_never_heard_of_it(chat: str, tmp_path: Path) -> None:
    causal_lm("Llama", vocab_size=40).save_pretrained(tmp_path)
    plain_tokenizer(tmp_path, 39, special=["</s>"])
    config = ModelConfig(backbone=str(tmp_path), chat=chat)
    tokenizer = build_tokenizer(config, list)
    tokenizer.eos_token = "</s>"
    rows = build_backbone(config, tokenizer).get_input_embeddings().num_embeddings
    formatter = Chat(FORMATS[chat], tokenizer)

    ids = [formatter.end_of_turn_id, *formatter.bos_ids]
    ids += [i for role in Role for i in formatter.opening_ids(role)]
    assert max(ids) < rows
    assert rows == 40 + len(FORMATS[chat].special_tokens)
    assert formatter.image_id == rows  # the last, and without a row


def test_new_tokens_begin_in_rows_that_are_spare_already(tmp_path: Path) -> None:
    lm = causal_lm("Llama", vocab_size=64)  # 24 rows that no token ever used
    lm.save_pretrained(tmp_path)
    plain_tokenizer(tmp_path, 40)
    config = ModelConfig(backbone=str(tmp_path), chat="chatml")
    tokenizer = build_tokenizer(config, list)
    again = build_backbone(config, tokenizer)
    pieces = tokenizer.encode("<|im_end|>", add_special_tokens=False, split_special_tokens=True)

    assert again.get_input_embeddings().num_embeddings == 64
    new, old = again.get_input_embeddings().weight, lm.get_input_embeddings().weight
    torch.testing.assert_close(new[41], old[pieces].mean(0))
    torch.testing.assert_close(new[42:], old[42:], rtol=0, atol=0)


def test_added_tokens_join_those_that_are_special_already(tmp_path: Path) -> None:
    plain_tokenizer(tmp_path, 40, special=["<end>", "<image>"], ordinary=["<|im_end|>"])
    causal_lm("Llama", vocab_size=40).save_pretrained(tmp_path)
    before = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer = build_tokenizer(ModelConfig(backbone=str(tmp_path), chat="chatml"), list)

    for token in ("<end>", "<image>", "<|im_end|>"):
        assert tokenizer.convert_tokens_to_ids(token) == before.convert_tokens_to_ids(token)
    assert "<end>" in tokenizer.extra_special_tokens  # not replaced
    assert len(tokenizer) == len(before) + 1  # <|im_start|> alone
    chat = Chat(FORMATS["chatml"], tokenizer)
    assert chat.end_of_turn_id not in chat.encode("a<|im_end|>")
    assert chat.decode([*chat.encode("a"), chat.end_of_turn_id]) == "a"
