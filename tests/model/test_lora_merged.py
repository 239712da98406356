"""Low-rank additions as plain weights, for a while."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from proassist_lit.evaluation import evaluator
from proassist_lit.model.config import LoraConfig
from proassist_lit.model.lora import has_lora, merged
from proassist_lit.streaming.decoder import CompiledDecoder, LlamaDecoder, make_decoder
from tests.model.adapted import NEW, adapted, backbone, copies, logits
from tests.model.tiny_lms import check_stream

KINDS = ["llama", "qwen2", "gemma", "gemma3", "gpt2", "phi", "phi3", "opt"]
CASES = [
    ("llama", False, False), ("llama", True, False), ("llama", False, True),
    *((kind, True, True) for kind in KINDS), ("phi", False, True), ("gpt2", False, True),
    ("SmolVLM", True, True), ("Qwen2VL", True, True), ("Gemma3", False, True),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "tied", "new"), CASES)
def test_merged_weights_compute_the_same_and_come_apart_again(
    kind: str, tied: bool, new: bool
) -> None:
    plain = logits(adapted(backbone(kind, tied=tied), LoraConfig(rank=3, alpha=1e-30)))
    model = adapted(backbone(kind, tied=tied), ids=NEW if new else [])
    want, before, modules = logits(model), copies(model), dict(model.named_modules())
    assert not torch.allclose(want, plain, atol=1e-2)  # the additions do something

    with merged(model.lm):
        assert not has_lora(model.lm)
        table, head = model.lm.get_input_embeddings(), model.lm.get_output_embeddings()
        assert isinstance(table, nn.Embedding)
        assert type(head) is nn.Linear
        assert (table.weight is head.weight) == tied
        torch.testing.assert_close(logits(model), want, atol=1e-9, rtol=0)

    assert dict(model.named_modules()) == modules
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_merged_equals_unmerged_in_float32() -> None:
    model = adapted(backbone("llama"), LoraConfig(rank=3, alpha=5.0, lm_head=True)).float()
    want = logits(model)
    with merged(model.lm):
        torch.testing.assert_close(logits(model), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_an_output_matrix_with_additions_is_merged_apart_from_the_embeddings(tied: bool) -> None:
    model = adapted(backbone("llama", tied=tied), LoraConfig(rank=3, alpha=5.0, lm_head=True))
    want, table = logits(model), model.lm.get_input_embeddings().weight.clone()
    with merged(model.lm):
        assert torch.equal(model.lm.get_input_embeddings().weight, table)
        torch.testing.assert_close(logits(model), want, atol=1e-9, rtol=0)


def test_streams_run_on_additions_and_by_compiled_kernels_when_merged() -> None:
    model = adapted(backbone("llama"), ids=NEW)
    check_stream(model, make_decoder(model))
    with merged(model.lm):
        decoder = make_decoder(model)
        assert isinstance(decoder, CompiledDecoder | LlamaDecoder)
        check_stream(model, decoder)
    with merged(backbone("llama")):  # nothing to merge
        pass


def test_evaluation_runs_on_merged_weights() -> None:
    model = adapted(backbone("llama")).train()
    with evaluator._evaluating(model):
        assert not has_lora(model.lm)
        assert not model.training
    assert has_lora(model.lm)
    assert model.training
