from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from proassist_lit.data.collate import collate
from proassist_lit.errors import ConfigError
from proassist_lit.lit.module import loss_parts
from proassist_lit.losses import SumCount, lm_loss
from proassist_lit.micro_batches import count_terms
from proassist_lit.model.config import Decision, HeadType
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind, compute_losses
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.types import IGNORE_INDEX, Batch
from tests.fakes import DIALOGUE, dialogue, random_features, tiny_model, word_chat


def make_batch(
    config: ObjectiveConfig, *, steps: bool = True, relevance: bool = False, chat: str = "compact"
) -> Batch:
    turns = DIALOGUE if steps else tuple(t for t in DIALOGUE if not hasattr(t, "updates"))
    record = dialogue(turns) if steps else dialogue(turns, steps=())
    examples = ExampleSet(
        [record], lambda c: random_features(c.num_frames), word_chat(chat),
        num_tokens_per_img=1, max_seq_len=4096, rho=config.rho,
        turn_frames=config.sampled_turn_frames, seed=0, relevance=relevance,
    )  # fmt: skip
    return collate([examples[0, 0]])


def turn_frames(kind: ObjectiveKind) -> int:
    """More than one where there are turns."""
    return 2 if kind is ObjectiveKind.PER_TURN else 1


@pytest.mark.parametrize("kind", list(ObjectiveKind))
def test_total_is_the_weighted_sum(kind: ObjectiveKind) -> None:
    config = ObjectiveConfig(
        kind=kind, turn_frames=turn_frames(kind), pos_weight=3.0, response_gen_weight=2.0,
        speaking_binary_weight=3.0, dst_gen_weight=5.0, dst_binary_weight=7.0,
    )  # fmt: skip
    with torch.no_grad():
        losses = compute_losses(tiny_model(), make_batch(config), config)

    def decide(loss):
        if kind is ObjectiveKind.PER_TURN:
            return (3 * loss.pos.sum + loss.neg.sum) / (3 * loss.pos.count + loss.neg.count)
        return (3 * loss.pos.sum / loss.pos.count + loss.neg.sum / loss.neg.count) / 4

    want = (
        2 * losses.response.sum / losses.response.count
        + 3 * decide(losses.speak)
        + 5 * losses.dst_response.sum / losses.dst_response.count
        + 7 * decide(losses.dst)
    )
    torch.testing.assert_close(losses.total, want)


@pytest.mark.parametrize(("kind", "decision"), [
    (ObjectiveKind.PER_TOKEN, Decision.INFORMATIVE_RELEVANCE),
    (ObjectiveKind.PER_TURN, Decision.HEAD),
    (ObjectiveKind.TOKEN_PROB, Decision.SILENT_TOKEN),
])  # fmt: skip
@pytest.mark.parametrize("dst", [True, False])
def test_the_losses_that_are_logged_make_the_total(
    kind: ObjectiveKind, decision: Decision, dst: bool
) -> None:
    config = ObjectiveConfig(
        kind=kind, pos_weight=0.3, silent_logit_weight=0.7, response_gen_weight=2.0,
        speaking_binary_weight=3.0, dst_gen_weight=5.0, dst_binary_weight=7.0,
    )  # fmt: skip
    has_relevance = decision is Decision.INFORMATIVE_RELEVANCE
    model = tiny_model(decision=decision, dst=dst, chat=word_chat())
    with torch.no_grad():
        losses = compute_losses(model, make_batch(config, relevance=has_relevance), config)

    logged = loss_parts(losses)
    total = logged.pop("loss")
    weights = {"loss_response": 2, "loss_speak": 3, "loss_relevance": 3} | {
        "loss_dst_response": 5, "loss_dst": 7,
    }  # fmt: skip
    torch.testing.assert_close(sum(weights[name] * part for name, part in logged.items()), total)
    assert ("loss_speak" in logged) == (decision is not Decision.SILENT_TOKEN)
    assert ("loss_relevance" in logged) == has_relevance
    assert ("loss_dst" in logged) == ("loss_dst_response" in logged) == dst


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_each_decision_learns_its_own_soft_targets(gamma: float) -> None:
    config = ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN, focal_gamma=gamma)
    batch, model = make_batch(config), tiny_model()
    generator = torch.Generator().manual_seed(0)
    speak, dst = (torch.rand(batch.speak_targets.shape, generator=generator) for _ in range(2))
    batch = replace(batch, speak_targets=speak, dst_targets=dst)
    with torch.no_grad():
        losses, out = compute_losses(model, batch, config), model(batch)

    def decide(logits, y, pos, neg):
        p = logits.sigmoid()
        terms = -(y * p.log() + (1 - y) * (1 - p).log()) * (y - p).abs() ** gamma
        return (terms[pos].mean() + terms[neg].mean()) / 2

    want_speak = decide(out.speak_logits, speak, batch.pos_frame_mask, batch.neg_frame_mask)
    want_dst = decide(out.dst_logits, dst, batch.dst_pos_frame_mask, batch.dst_neg_frame_mask)
    torch.testing.assert_close(losses.parts["speak"], want_speak)
    torch.testing.assert_close(losses.parts["dst"], want_dst)
    words = losses.response.mean() + losses.dst_response.mean()
    torch.testing.assert_close(losses.total, words + want_speak + want_dst)


def test_per_turn_reads_one_decision_a_turn() -> None:
    config = ObjectiveConfig(kind=ObjectiveKind.PER_TURN, turn_frames=2)
    batch = make_batch(config)

    # frames 10, 13, 14, 17 end with a span; 12 after two silent frames
    assert int((batch.pos_frame_mask | batch.neg_frame_mask).sum()) == 5
    per_token = make_batch(ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN))
    assert int((per_token.pos_frame_mask | per_token.neg_frame_mask).sum()) == 8


PER_TOKEN, PER_TURN, TOKEN_PROB = ObjectiveKind
OBJECTIVES = [
    (PER_TOKEN, Decision.HEAD),
    (PER_TOKEN, Decision.INFORMATIVE_RELEVANCE),
    (PER_TURN, Decision.HEAD),
    (TOKEN_PROB, Decision.SILENT_TOKEN),
    (TOKEN_PROB, Decision.OPENING_TOKEN),
]


@pytest.mark.parametrize(("kind", "decision"), OBJECTIVES)
@pytest.mark.parametrize("head", list(HeadType))
@pytest.mark.parametrize("dst_output_head", [False, True])
def test_every_trainable_parameter_gets_a_gradient(
    kind: ObjectiveKind, decision: Decision, head: HeadType, dst_output_head: bool
) -> None:
    config = ObjectiveConfig(kind=kind, turn_frames=turn_frames(kind), focal_gamma=1.0)
    model = tiny_model(
        head=head, dst_output_head=dst_output_head, decision=decision, chat=word_chat()
    ).train()

    relevance = decision is Decision.INFORMATIVE_RELEVANCE
    compute_losses(model, make_batch(config, relevance=relevance), config).total.backward()

    for name, parameter in model.named_parameters():
        assert parameter.requires_grad, name
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("kind", list(ObjectiveKind))
def test_without_decisions_or_dst_labels_every_parameter_still_has_a_gradient(
    kind: ObjectiveKind,
) -> None:
    config = ObjectiveConfig(kind=kind, rho=0.0)
    model = tiny_model(dst_output_head=True).train()
    batch = make_batch(config, steps=False)
    batch = Batch(**{**vars(batch), "pos_frame_mask": torch.zeros_like(batch.pos_frame_mask)})

    losses = compute_losses(model, batch, config)
    losses.total.backward()

    assert torch.isfinite(losses.total)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name  # DDP waits for every one
        assert torch.isfinite(parameter.grad).all(), name


def test_the_silent_token_is_learnt_among_the_words_with_its_own_weight() -> None:
    chat = word_chat()
    model = tiny_model(decision=Decision.SILENT_TOKEN, dst=False, chat=chat)
    batch = make_batch(ObjectiveConfig())
    weight = 0.3

    losses = compute_losses(
        model, batch, ObjectiveConfig(kind=TOKEN_PROB, silent_logit_weight=weight)
    )

    with torch.no_grad():
        log_probs = model.lm_logits(model(batch).hidden).log_softmax(-1)
    silent = -log_probs[..., chat.silent_id][batch.neg_frame_mask]
    total = losses.response.sum + weight * silent.sum()
    torch.testing.assert_close(losses.total, total / (losses.response.count + len(silent)))


@pytest.mark.parametrize("learns_openings", [True, False])
def test_that_a_frame_is_not_silent_is_learnt_where_no_opening_tells_it(
    learns_openings: bool,
) -> None:
    chat = word_chat()
    chat.format = replace(chat.format, train_openings=learns_openings)
    model = tiny_model(decision=Decision.SILENT_TOKEN, dst=False, chat=chat)
    config = ObjectiveConfig(kind=TOKEN_PROB)
    batch = make_batch(config)
    losses = compute_losses(model, batch, config)

    with torch.no_grad():
        out = model(batch)
        words = lm_loss(model, out.hidden, batch.labels)
        p = model.lm_logits(out.hidden).softmax(-1)[..., chat.silent_id][batch.pos_frame_mask]
    want = SumCount(-(1 - p).log().sum(), torch.tensor(len(p)))
    assert len(p) > 0
    assert losses.response.count == words.count + (0 if learns_openings else len(p))
    added = losses.response.sum - words.sum
    torch.testing.assert_close(added, torch.zeros_like(added) if learns_openings else want.sum)
    assert count_terms(model, batch)[0] == losses.response.count


@pytest.mark.parametrize("name", ["compact", "chatml", "llama3"])
@pytest.mark.parametrize("dst_output_head", [False, True])
def test_beside_updates_silence_is_learnt_or_not_but_never_both(
    name: str, dst_output_head: bool
) -> None:
    chat, config = word_chat(name), ObjectiveConfig(kind=TOKEN_PROB)
    batch = make_batch(config, chat=name)
    model = tiny_model(decision=Decision.SILENT_TOKEN, dst_output_head=dst_output_head, chat=chat)
    losses = compute_losses(model, batch, config)

    frames = (batch.pos_frame_mask | batch.neg_frame_mask)[0].nonzero().flatten().tolist()
    update, both = frames[3], frames[4]  # 13 with an update only, 14 with words behind it
    labels = batch.dst_labels.clone()
    for frame in (update, both):
        assert batch.dst_pos_frame_mask[0, frame]
        assert (labels[0, frame + 1] >= 0) == chat.format.train_openings
        labels[0, frame + 1] = IGNORE_INDEX
    not_silent = batch.pos_frame_mask[0].nonzero().flatten().tolist()
    if chat.format.train_openings:
        not_silent = [both]  # elsewhere the opening tells it
    with torch.no_grad():
        hidden = model(batch).hidden
        updates = lm_loss(model, hidden, labels, dst=True)
        words = lm_loss(model, hidden, batch.labels)
        p = model.lm_logits(hidden).softmax(-1)[0, not_silent]
    added = -(1 - p[:, chat.silent_id]).log()
    torch.testing.assert_close(losses.dst_response.sum, updates.sum)
    torch.testing.assert_close(losses.response.sum, words.sum + added.sum())
    assert losses.dst_response.count == updates.count
    assert losses.response.count == words.count + len(added)
    assert count_terms(model, batch).tolist() == losses.counts().tolist()
    assert batch.neg_frame_mask[0, update]  # silence is learnt there, and nothing else
    assert batch.labels[0, update + 1] == IGNORE_INDEX

    by_heads = compute_losses(
        tiny_model(dst_output_head=dst_output_head, chat=chat), batch, ObjectiveConfig()
    )
    assert by_heads.dst_response.count == (batch.dst_labels != IGNORE_INDEX).sum()
    assert by_heads.response.count == words.count


@pytest.mark.parametrize("dst", [True, False])
def test_both_heads_to_speak_learn_by_balanced_cross_entropy(dst: bool) -> None:
    config = ObjectiveConfig(
        kind=PER_TOKEN, rho=0.5, speaking_binary_weight=3.0, pos_weight=2.0, dst_gen_weight=5.0
    )
    model = tiny_model(decision=Decision.INFORMATIVE_RELEVANCE, dst=dst)
    batch = make_batch(config, relevance=True)
    with torch.no_grad():
        losses = compute_losses(model, batch, config)
        out = model(batch)
        informative, relevance = (head.sigmoid() for head in model.speak_head.scores(out.hidden))

    def balanced(probs, yes, no):
        return -(2 * probs[yes].log().mean() + (1 - probs[no]).log().mean()) / 3

    # the first three frames come before any step, every one after is under way
    assert int(batch.relevance_pos_frame_mask.sum()) == 7
    assert int(batch.relevance_neg_frame_mask.sum()) == 3
    assert int((batch.pos_frame_mask | batch.neg_frame_mask).sum()) < 8  # only this is sub-sampled
    said = balanced(informative, batch.pos_frame_mask, batch.neg_frame_mask)
    seen = balanced(relevance, batch.relevance_pos_frame_mask, batch.relevance_neg_frame_mask)
    want = losses.response.mean() + 3 * said + 3 * seen
    if dst:
        want = want + 5 * losses.dst_response.mean() + losses.dst.balanced(2.0)
    torch.testing.assert_close(losses.total, want)
    assert len(losses.pairs()) == (8 if dst else 5)


def test_opening_tokens_are_read_as_probabilities() -> None:
    chat = word_chat()
    model = tiny_model(decision=Decision.OPENING_TOKEN, dst_output_head=True, chat=chat)
    batch = make_batch(ObjectiveConfig())
    with torch.no_grad():
        model.dst_output_head.weight.mul_(-1)  # its own words
        out = model(batch)

    for logits, role, pos, neg in (
        (out.speak_logits, Role.ASSISTANT, batch.pos_frame_mask, batch.neg_frame_mask),
        (out.dst_logits, Role.DST, batch.dst_pos_frame_mask, batch.dst_neg_frame_mask),
    ):
        words = model.lm_logits(out.hidden, dst=role is Role.DST).softmax(-1)
        want = words[..., chat.opening_ids(role)[0]]
        mask = pos | neg
        torch.testing.assert_close(logits.sigmoid()[mask], want[mask])
        assert not logits[~mask].any()  # the vocabulary was not read there


def test_token_decisions_need_a_chat_with_openings_of_their_own() -> None:
    with pytest.raises(ConfigError, match="give the model its chat"):
        tiny_model(decision=Decision.SILENT_TOKEN)
    with pytest.raises(ConfigError, match=r"'chatml' opens the assistant span with 3"):
        tiny_model(decision=Decision.OPENING_TOKEN, chat=word_chat("chatml"))


def test_without_a_dst_head_there_are_no_dst_losses() -> None:
    config = ObjectiveConfig()

    losses = compute_losses(tiny_model(dst=False), make_batch(config), config)

    assert losses.dst is None
    assert losses.dst_response is None
    assert torch.isfinite(losses.total)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"logit_chunk": 0}, r"objective\.logit_chunk must be at least 1, got 0"),
        ({"rho": 1.1}, r"objective\.rho must be in \[0, 1\], got 1\.1; use 1\.0"),
        ({"turn_frames": 0}, r"objective\.turn_frames must be at least 1, got 0"),
        ({"pos_weight": 0.0}, r"objective\.pos_weight must be > 0, got 0\.0"),
        ({"focal_gamma": -1.0}, r"objective\.focal_gamma must be >= 0, got -1\.0"),
        ({"dst_gen_weight": -1.0}, r"objective\.dst_gen_weight must be >= 0"),
    ],
)
def test_objective_settings_are_checked(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ObjectiveConfig(**setting)
