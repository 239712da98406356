from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from proassist_lit.data.collate import collate
from proassist_lit.losses import BinaryLoss, SumCount, binary_loss, lm_loss
from proassist_lit.model import heads
from proassist_lit.model.config import Decision, LoraConfig
from proassist_lit.model.lora import add_lora
from proassist_lit.objectives import ObjectiveConfig, compute_losses
from proassist_lit.sequence.examples import ExampleSet
from tests.fakes import DIALOGUE, dialogue, random_features, tiny_model, word_chat

LOGITS = torch.tensor([[2.0, -1.0, 0.5, 3.0]])
POS = torch.tensor([[True, False, False, False]])
NEG = torch.tensor([[False, True, True, False]])  # token 3 is sub-sampled away
NONE = torch.zeros(1, 4, dtype=torch.bool)


def test_balanced_is_the_mean_of_class_means() -> None:
    p = LOGITS[0].sigmoid()
    loss = binary_loss(LOGITS, POS, NEG)

    pos, neg = -p[0].log(), -(1 - p[1:3]).log().mean()
    torch.testing.assert_close(loss.balanced(), 0.5 * (pos + neg))
    torch.testing.assert_close(loss.balanced(3.0), (3 * pos + neg) / 4)


def test_plain_is_the_mean_over_decisions() -> None:
    p = LOGITS[0].sigmoid()
    loss = binary_loss(LOGITS, POS, NEG)

    pos, neg = -p[0].log(), -(1 - p[1:3]).log().sum()
    torch.testing.assert_close(loss.plain(), (pos + neg) / 3)
    torch.testing.assert_close(loss.plain(2.0), (2 * pos + neg) / 4)


@pytest.mark.parametrize("pos_weight", [0.5, 0.1, 1e-6])
def test_plain_is_a_mean_where_weights_add_up_to_less_than_one(pos_weight: float) -> None:
    p = LOGITS[0].sigmoid()

    only_pos = binary_loss(LOGITS, POS, NONE).plain(pos_weight)
    torch.testing.assert_close(only_pos, -p[0].log())


def test_sums_and_counts_are_of_each_class() -> None:
    p = LOGITS[0].sigmoid()
    loss = binary_loss(LOGITS, POS, NEG)

    torch.testing.assert_close(loss.pos.sum, -p[0].log())
    torch.testing.assert_close(loss.neg.sum, -(1 - p[1:3]).log().sum())
    assert (loss.pos.count.item(), loss.neg.count.item()) == (1.0, 2.0)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_factor_weighs_down_what_is_right(gamma: float) -> None:
    p = LOGITS[0].sigmoid()
    loss = binary_loss(LOGITS, POS, NEG, focal_gamma=gamma)

    torch.testing.assert_close(loss.pos.sum, -((1 - p[0]) ** gamma) * p[0].log())
    torch.testing.assert_close(loss.neg.sum, -(p[1:3] ** gamma * (1 - p[1:3]).log()).sum())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_soft_targets_are_learnt_as_probabilities(gamma: float) -> None:
    targets = torch.tensor([[1.0, 0.25, 0.6, 0.9]])
    p, y = LOGITS[0].sigmoid(), targets[0]
    loss = binary_loss(LOGITS, POS, NEG, targets=targets, focal_gamma=gamma)

    terms = -(y * p.log() + (1 - y) * (1 - p).log()) * (y - p).abs() ** gamma
    torch.testing.assert_close(loss.pos.sum, terms[0])
    torch.testing.assert_close(loss.neg.sum, terms[1] + terms[2])  # token 3 is in neither mask
    assert (loss.pos.count.item(), loss.neg.count.item()) == (1.0, 2.0)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_factor_has_a_gradient_where_nothing_is_missed(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0, 0.0, 0.0]], requires_grad=True)
    binary_loss(logits, POS, NEG, focal_gamma=gamma).balanced().backward()

    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("how", ["balanced", "plain"])
def test_a_missing_class_drops_out(how: str) -> None:
    p = LOGITS[0].sigmoid()

    only_pos = getattr(binary_loss(LOGITS, POS, NONE), how)()
    only_neg = getattr(binary_loss(LOGITS, NONE, NEG), how)()

    torch.testing.assert_close(only_pos, -p[0].log())
    torch.testing.assert_close(only_neg, -(1 - p[1:3]).log().mean())


@pytest.mark.parametrize("how", ["balanced", "plain"])
def test_without_decisions_the_loss_is_zero_with_a_gradient_path(how: str) -> None:
    logits = torch.zeros(2, 3, requires_grad=True)
    none = torch.zeros(2, 3, dtype=torch.bool)
    loss = getattr(binary_loss(logits, none, none, focal_gamma=2.0), how)()
    loss.backward()

    assert loss.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0.0


def test_extreme_logits_outside_the_masks_do_no_harm() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5, math.inf]], requires_grad=True)
    loss = binary_loss(logits, POS, NEG).balanced()
    loss.backward()

    torch.testing.assert_close(loss, binary_loss(LOGITS, POS, NEG).balanced())
    assert torch.isfinite(logits.grad).all()


def test_very_sure_and_wrong_stays_finite() -> None:
    logits = torch.tensor([[-1e4, 1e4, 0.0, 0.0]])

    assert binary_loss(logits, POS, NEG).balanced().item() == pytest.approx(
        0.5 * (1e4 + 5e3), rel=1e-3
    )


def test_half_precision_logits_are_summed_in_float32() -> None:
    loss = binary_loss(LOGITS.bfloat16(), POS, NEG)

    assert loss.pos.sum.dtype == torch.float32
    assert binary_loss(LOGITS.double(), POS, NEG).pos.sum.dtype == torch.float64


def test_binary_loss_refuses_different_shapes() -> None:
    with pytest.raises(ValueError, match=r"got \(1, 4\), \(1, 3\), \(1, 4\)"):
        binary_loss(LOGITS, POS[:, :3], NEG)


def test_sum_count_adds() -> None:
    one, two = (
        SumCount(torch.tensor(3.0), torch.tensor(2.0)),
        SumCount(torch.tensor(1.0), torch.tensor(2.0)),
    )

    assert (one + two).mean().item() == 1.0
    assert SumCount(torch.tensor(0.0), torch.tensor(0.0)).mean().item() == 0.0


# -- the language-model loss ------------------------------------------------------------------


@pytest.mark.parametrize("own_head", [False, True])
def test_lm_loss_shifts_once_and_counts_labels(own_head: bool) -> None:
    model = tiny_model(dst_output_head=own_head)
    if own_head:
        with torch.no_grad():
            model.dst_output_head.weight.mul_(2)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 5, 16, generator=generator, dtype=torch.float64)
    labels = torch.tensor([[-100, 3, 4, -100, 5], [7, -100, -100, 6, -100]])

    for dst in (False, True):
        loss = lm_loss(model, hidden, labels, dst=dst)

        table = model.dst_output_head if dst and own_head else model.lm.get_output_embeddings()
        log_probs = F.log_softmax(hidden @ table.weight.T, dim=-1)
        places = [(0, 0, 3), (0, 1, 4), (0, 3, 5), (1, 2, 6)]  # the label 7 has no token before it
        want = -sum(log_probs[b, t, token] for b, t, token in places)
        torch.testing.assert_close(loss.sum, want)
        assert loss.count.item() == 4.0


def test_lm_loss_without_labels_is_zero_with_a_gradient_path() -> None:
    hidden = torch.zeros(1, 3, 16, dtype=torch.float64, requires_grad=True)
    loss = lm_loss(tiny_model(), hidden, torch.full((1, 3), -100))
    loss.mean().backward()

    assert loss.mean().item() == 0.0
    assert loss.count.item() == 0.0
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() == 0.0


@pytest.mark.parametrize("k", [1, 5])
def test_sums_of_a_batch_are_the_added_sums_of_its_members(k: int) -> None:
    records = [
        dialogue(),
        dialogue(DIALOGUE[:5], video_uid="b"),
        dialogue(DIALOGUE[2:9], video_uid="c"),
    ]
    examples = ExampleSet(
        records, lambda c: random_features(c.num_frames, k, seed=len(c.turns)), word_chat("chatml"),
        num_tokens_per_img=k, max_seq_len=4096, rho=1.0, turn_frames=None, seed=0,
    )  # fmt: skip
    model, config = tiny_model(), ObjectiveConfig(focal_gamma=1.0)
    members = [examples[0, i] for i in range(3)]
    with torch.no_grad():
        whole = compute_losses(model, collate(members), config)
        parts = [compute_losses(model, collate([member]), config) for member in members]

    def rows(losses) -> list[SumCount]:
        binary: list[BinaryLoss] = [losses.speak, losses.dst]
        return [losses.response, losses.dst_response, *(x for b in binary for x in (b.pos, b.neg))]

    for together, *alone in zip(rows(whole), *map(rows, parts), strict=True):
        assert together.count > 0
        torch.testing.assert_close(together.sum, sum(x.sum for x in alone))
        assert together.count == sum(x.count for x in alone)


@pytest.mark.parametrize("chunk", [1, 3, 4, 100])
@pytest.mark.parametrize("own_head", [False, True])
def test_lm_loss_in_chunks_is_that_of_the_whole(chunk: int, own_head: bool) -> None:
    model = tiny_model(dst_output_head=own_head)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 50, (2, 9), generator=generator)
    labels[torch.rand(2, 9, generator=generator) < 0.4] = -100
    found = []
    for size in (10**6, chunk):
        hidden = torch.randn(2, 9, 16, dtype=torch.float64, generator=generator.manual_seed(1))
        hidden.requires_grad_()
        loss = lm_loss(model, hidden, labels, dst=own_head, logit_chunk=size)
        table = model.dst_output_head if own_head else model.lm.get_output_embeddings()
        gradients = torch.autograd.grad(loss.mean(), [hidden, table.weight])
        found.append([loss.sum.detach(), loss.count, *gradients])

    for whole, chunked in zip(*found, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-12)


def test_chunks_go_through_the_output_module_with_its_additions_rows_and_bias() -> None:
    model = tiny_model().double()
    head = nn.Linear(model.hidden_size, 128, bias=True, dtype=torch.float64)
    model.lm.set_output_embeddings(head)
    add_lora(model.lm, LoraConfig(rank=2, alpha=4, lm_head=True, dropout=0.5))
    model.train()
    head = model.lm.get_output_embeddings()
    for name, parameter in head.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    hidden = torch.randn(1, 21, model.hidden_size, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(21)[None]
    trained = [hidden, *(p for p in head.parameters() if p.requires_grad)]

    torch.manual_seed(3)
    summed = lm_loss(model, hidden, labels, logit_chunk=7).sum
    found = [summed.detach(), *torch.autograd.grad(summed, trained)]
    torch.manual_seed(3)  # the same dropout, and once more when the gradient is computed
    logits = torch.cat([head(rows) for rows in torch.split(hidden[0, :-1], 7)])
    summed = F.cross_entropy(logits, labels[0, 1:], reduction="sum")
    wanted = [summed.detach(), *torch.autograd.grad(summed, trained)]

    assert len(trained) == 3
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        assert ours.abs().sum() > 0


def test_logits_of_chunks_are_not_kept_for_the_gradient() -> None:
    model = tiny_model()
    hidden = torch.randn(1, 41, 16, dtype=torch.float64, requires_grad=True)
    labels = torch.ones(1, 41, dtype=torch.int64)
    kept: dict[int, int] = {}
    for chunk in (100, 10):
        sizes = list[int]()

        def note(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = lm_loss(model, hidden, labels, logit_chunk=chunk)
        kept[chunk] = max(sizes)
        loss.mean().backward()

    assert kept[100] >= 40 * 128  # positions, vocabulary
    assert kept[10] <= 41 * 16  # hidden states


def test_token_decisions_in_chunks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(decision=Decision.SILENT_TOKEN, chat=word_chat())
    hidden = torch.randn(7, 16, dtype=torch.float64, requires_grad=True)
    whole = model.speak_head(hidden)
    monkeypatch.setattr(heads, "ROWS", 3)
    chunked = model.speak_head(hidden)

    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-12)
    wanted, found = (torch.autograd.grad(x.sin().sum(), hidden)[0] for x in (whole, chunked))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
