"""How a session that steps as the reference does decides to speak."""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch

from proassist_lit.data.conversation import FramesTurn
from proassist_lit.model.config import Decision
from proassist_lit.streaming.reference_context import ReferenceConfig
from tests.fakes import Words, random_features, tiny_model
from tests.streaming.reference_sessions import CONFIG, TURNS, chat, open_session, play, speaking


def test_threshold_of_zero_leaves_the_decision_to_the_next_token() -> None:
    formatter = chat()
    model = tiny_model(dst=False)
    config = replace(CONFIG, not_talk_threshold=0.0)
    model.words = Words(formatter, [""], ["nonsense"])  # nothing but the end of turn

    silent = open_session(model, formatter, config).step(random_features(1)[0])
    model.words = Words(formatter, ["wait"], ["nonsense"])
    spoken = open_session(model, formatter, config).step(random_features(1)[0])

    assert not silent.speak
    assert silent.text == ""
    assert spoken.speak
    assert spoken.text == "wait"
    assert silent.speak_prob == spoken.speak_prob > 0


def test_silent_token_is_forbidden_as_first_token_only() -> None:
    formatter = chat()
    model = tiny_model(dst=False, spread=1.0)
    weight = model.lm.get_output_embeddings().weight
    with torch.no_grad():
        weight[formatter.end_of_turn_id] = 0.0
        bias = torch.zeros(len(weight), dtype=torch.float64)
        bias[formatter.end_of_turn_id] = 1e6  # always the most probable
    own = model.lm_logits
    model.lm_logits = lambda hidden, *, dst=False: own(hidden, dst=dst) + bias  # type: ignore[method-assign]

    session = open_session(model, formatter, replace(CONFIG, not_talk_threshold=1.0))
    session.step(random_features(1)[0])

    assert session.last is not None
    written = session.last.frame.output_ids
    assert written[0] != formatter.end_of_turn_id
    assert written[1:] == (formatter.end_of_turn_id,)


def test_differences_compare_with_the_frame_before() -> None:
    formatter = chat()
    config = replace(CONFIG, not_talk_threshold="diff0.05", init_last_not_talk_prob=0.0)
    outputs, traces = play(open_session(tiny_model(dst=False), formatter, config))

    probs = [0.0, *(trace.frame.not_talk_prob for trace in traces)]
    want = [before - now > 0.05 or now <= 0.5 for before, now in itertools.pairwise(probs)]
    assert [output.speak for output in outputs] == want
    assert any(o.speak and o.speak_prob < 0.5 for o in outputs)  # the difference decided


def test_differences_compare_with_a_summary_where_one_was_asked_for() -> None:
    formatter = chat()
    config = ReferenceConfig(
        strategy="summarize", eval_max_seq_len=60, reserved_seq_len=20, max_length=8,
        not_talk_threshold="diff0.02",
    )  # fmt: skip
    turns = (*TURNS[:3], FramesTurn(start=4, end=160))
    outputs, traces = play(open_session(speaking(formatter), formatter, config, turns=turns), turns)

    num_decided = 0
    for t, (one, following) in enumerate(itertools.pairwise(traces)):
        now = following.frame.not_talk_prob
        before = (one.summary or one.frame).not_talk_prob
        assert outputs[t + 1].speak == (now <= 0.5 or before - now > 0.02)
        num_decided += (before - now > 0.02) != (one.frame.not_talk_prob - now > 0.02) and now > 0.5
    assert num_decided  # it made a difference


def test_decisions_by_the_silent_token_need_no_head() -> None:
    formatter = chat()
    model = tiny_model(dst=False, decision=Decision.SILENT_TOKEN, chat=formatter)

    config = replace(CONFIG, use_gt_context=True)  # no decision changes the ones after it
    _, traces = play(open_session(model, formatter, config))
    probs = [trace.frame.not_talk_prob for trace in traces]
    middle = sorted(probs)[len(probs) // 2]
    outputs, _ = play(open_session(model, formatter, replace(config, not_talk_threshold=middle)))

    assert [o.speak_prob for o in outputs] == [1 - prob for prob in probs]
    assert [o.speak for o in outputs] == [prob <= middle for prob in probs]
    assert {o.speak for o in outputs} == {True, False}
    assert all(o.dst_prob is None and not o.dst and o.state == {} for o in outputs)
