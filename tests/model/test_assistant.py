from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import PhiConfig, PhiForCausalLM

from proassist_lit.data.collate import collate
from proassist_lit.errors import FeatureError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import Decision, HeadType, ModelConfig, TrainMode
from proassist_lit.model.heads import DecisionHead
from proassist_lit.sequence.examples import ExampleSet
from tests.fakes import VISION_SIZE, dialogue, random_features, tiny_model, word_chat


def make_batch(k: int = 1):
    examples = ExampleSet(
        [dialogue(), dialogue(video_uid="other")],
        lambda c: random_features(c.num_frames, k, seed=len(c.video_uid)), word_chat(),
        num_tokens_per_img=k, max_seq_len=4096, rho=1.0, turn_frames=None, seed=0,
    )  # fmt: skip
    return collate([examples[0, 0], examples[0, 1]])


@pytest.mark.parametrize("k", [1, 5])
def test_features_replace_image_tokens_row_by_row(k: int) -> None:
    model, batch = tiny_model(), make_batch(k)
    with torch.no_grad():
        embeds = model.embed(batch.input_ids, batch.image_mask, batch.image_features)
        words = model.embed_tokens(batch.input_ids)
        features = torch.cat([random_features(10, k, seed=n) for n in (5, 5)])
        images = model.projector(features.flatten(0, 1))

    torch.testing.assert_close(embeds[batch.image_mask], images)
    torch.testing.assert_close(embeds[~batch.image_mask], words[~batch.image_mask])


def test_output_shapes_and_heads() -> None:
    model, batch = tiny_model(), make_batch()
    with torch.no_grad():
        out = model(batch)

    assert out.hidden.shape == (*batch.input_ids.shape, 16)
    assert out.speak_logits.shape == out.dst_logits.shape == batch.input_ids.shape
    torch.testing.assert_close(out.speak_logits, model.speak_head(out.hidden))
    torch.testing.assert_close(out.dst_logits, model.dst_head(out.hidden))
    assert not torch.equal(out.speak_logits, out.dst_logits)


def test_later_tokens_do_not_reach_earlier_ones() -> None:
    model, batch = tiny_model(), make_batch()
    changed = batch.input_ids.clone()
    changed[:, 20:] = changed[:, 20:].flip(1)
    with torch.no_grad():
        one = model.hidden_states(model.embed_tokens(batch.input_ids))
        two = model.hidden_states(model.embed_tokens(changed))

    torch.testing.assert_close(one[:, :20], two[:, :20])
    assert not torch.allclose(one[:, 20:], two[:, 20:])


def test_image_ids_beyond_the_vocabulary_are_replaced_anyway() -> None:
    model = tiny_model()
    ids = torch.tensor([[1, 10_000, 2]])
    mask = ids == 10_000
    with torch.no_grad():
        embeds = model.embed(ids, mask, random_features(1)[:, 0])

        torch.testing.assert_close(embeds[0, 1], model.project(random_features(1)[0, 0]))


def test_project_refuses_another_width_with_both_widths() -> None:
    with pytest.raises(FeatureError, match=r"features are 9 wide, .* reads 6; use the encoder"):
        tiny_model().project(torch.zeros(2, 9))


def test_half_precision_features_fit_the_projector() -> None:
    assert tiny_model(dtype=torch.float32).project(torch.zeros(2, 6).half()).dtype == torch.float32


def test_mlp_head_is_halved_gelu_and_one() -> None:
    head = DecisionHead(16, HeadType.MLP)
    hidden = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(0))

    first, last = head.net[0], head.net[2]
    assert first.out_features == 8
    want = last(nn.functional.gelu(first(hidden)))[..., 0]
    torch.testing.assert_close(head(hidden), want)
    assert DecisionHead(16, HeadType.LINEAR)(hidden).shape == (3, 4)


def test_frozen_backbone_leaves_projector_and_heads_trainable() -> None:
    model = AssistantModel(
        tiny_model().lm, vision_size=VISION_SIZE, config=ModelConfig(train=TrainMode.FROZEN)
    )
    trainable = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}

    assert trainable == {"projector", "speak_head", "dst_head"}


def test_dst_output_head_starts_as_a_copy_and_is_used_for_dst_only() -> None:
    model = AssistantModel(
        tiny_model().lm, vision_size=VISION_SIZE, config=ModelConfig(dst_output_head=True)
    ).double()
    hidden = torch.randn(4, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(model.lm_logits(hidden, dst=True), model.lm_logits(hidden))

    with torch.no_grad():
        model.dst_output_head.weight.mul_(3)

    torch.testing.assert_close(model.lm_logits(hidden, dst=True), 3 * model.lm_logits(hidden))
    assert (
        model.dst_output_head.weight.data_ptr()
        != model.lm.get_output_embeddings().weight.data_ptr()
    )


def test_dst_output_head_copies_a_bias_too() -> None:
    lm = PhiForCausalLM(
        PhiConfig(vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                  num_attention_heads=2, pad_token_id=0)
    )  # fmt: skip
    torch.nn.init.normal_(lm.lm_head.bias)
    model = AssistantModel(
        lm, vision_size=VISION_SIZE, config=ModelConfig(dst_output_head=True, train=TrainMode.FULL)
    )
    hidden = torch.randn(4, 16)
    torch.testing.assert_close(model.lm_logits(hidden, dst=True), model.lm_logits(hidden))


def test_without_dst_there_is_no_second_head() -> None:
    model = tiny_model(dst=False)
    with torch.no_grad():
        assert model(make_batch()).dst_logits is None
    assert model.dst_output_head is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_two_heads_decide_by_the_mean_of_their_probabilities(dtype: torch.dtype) -> None:
    model = tiny_model(decision=Decision.INFORMATIVE_RELEVANCE, dtype=dtype)
    hidden = torch.randn(5, 3, 16, dtype=dtype)
    with torch.no_grad():
        informative, relevance = model.speak_head.scores(hidden)
        got = model.speak_head(hidden)

    probs = (informative.double().sigmoid() + relevance.double().sigmoid()) / 2
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(got.sigmoid().double(), probs, atol=1e-6, rtol=0)
    assert not torch.equal(informative, relevance)


def test_two_heads_that_are_certain_give_finite_log_odds_and_gradients() -> None:
    head = tiny_model(decision=Decision.INFORMATIVE_RELEVANCE, dtype=torch.float32).speak_head
    hidden = torch.full((1, 16), 1e3, requires_grad=True)
    for sign in (1, -1):
        logit = head(sign * hidden)
        logit.sum().backward()
        assert torch.isfinite(logit).all()
        assert torch.isfinite(hidden.grad).all()


def test_training_reads_two_heads_apart() -> None:
    model, batch = tiny_model(decision=Decision.INFORMATIVE_RELEVANCE), make_batch()
    with torch.no_grad():
        out = model(batch)

    torch.testing.assert_close(out.speak_logits, model.speak_head.informative(out.hidden))
    torch.testing.assert_close(out.relevance_logits, model.speak_head.relevance(out.hidden))
    with torch.no_grad():
        assert tiny_model()(batch).relevance_logits is None
