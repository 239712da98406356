"""The faults of the reference's streaming, one by one: ours does better."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from proassist_lit.data.conversation import AssistantTurn
from proassist_lit.errors import ConfigError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.sequence.builder import prefix_ids, text_ids
from proassist_lit.sequence.ground_truth import references
from proassist_lit.sequence.rules import PROASSIST
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.arrivals import heard
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.config import ContextSource, Strategy
from proassist_lit.streaming.context import summary_query
from proassist_lit.streaming.decoder import make_decoder
from proassist_lit.streaming.reference import reference_turn
from tests.parity.numbers import conversation, needs
from tests.parity.our_sessions import LIMITS, Ours, begins, briefest, holds_first, tight
from tests.parity.streams import MODELS, RUNS, VIDEOS, features, kind, load, play, settings

pytestmark = needs("streaming.json", "streaming.safetensors", "losses.safetensors")


def shortest(runs: Iterable[int]) -> list[int]:
    return sorted(runs, key=lambda i: len(RUNS[i]["frames"]))


@pytest.mark.parametrize("i", shortest(i for i, run in enumerate(RUNS) if kind(run) == "diff")[:2])
def test_differences_need_no_frame_before_the_first(i: int) -> None:
    """Where the reference fails (the faults of "streaming")."""
    run = RUNS[i]

    outputs, traces = play(run, replace(settings(run), init_last_not_talk_prob=None))

    assert outputs[0].speak == (traces[0].frame.not_talk_prob <= 0.5)
    assert traces[0].frame.not_talk_prob == pytest.approx(run["frames"][0]["p"], abs=1e-4)
    # Nothing is left of the stream before, either.
    assert (outputs, traces) == play(run, settings(run))


@pytest.mark.parametrize("video", briefest())
def test_the_end_of_turn_enters_our_context(video: str) -> None:
    ours = Ours(video).play(20)

    assert all(output.speak for output in ours.outputs)
    for fed in ours.fed[1:]:
        assert begins(fed[0], [ours.chat.end_of_turn_id], ours)


@pytest.mark.parametrize("video", briefest())
def test_every_context_of_ours_begins_with_bos(video: str) -> None:
    ours = Ours(video, tight(video, Strategy.DROP_ALL))

    prefix = prefix_ids(ours.chat, ours.script, {})
    assert prefix[: len(ours.chat.bos_ids)] == ours.chat.bos_ids
    dropped = False
    for _ in ours.script.moments:
        after = bool(ours.outputs) and ours.outputs[-1].event is not None
        ours.step()
        if after or len(ours.outputs) == 1:  # what follows the prompt may differ
            assert holds_first(ours, ours.chat.bos_ids if after else prefix)
        dropped |= after
    assert dropped
    assert begins(ours.fed[0][0], prefix, ours)


@pytest.mark.parametrize("video", VIDEOS)
def test_no_assistant_turn_of_ours_is_lost(video: str) -> None:
    turns = conversation(VIDEOS[video]["conversation"]).turns
    script = read_script(conversation(VIDEOS[video]["conversation"]))
    said = " ".join(reference.text for reference in references(script) if reference.text)

    assert said == " ".join(t.content for t in turns if isinstance(t, AssistantTurn))


def test_the_reference_loses_assistant_turns() -> None:
    """Otherwise the test before this one shows nothing."""
    lost = 0
    for video in VIDEOS.values():
        record = conversation(video["conversation"])
        kept = [reference_turn(m.spans) for m in read_script(record, PROASSIST).moments]
        num_turns = sum(isinstance(turn, AssistantTurn) for turn in record.turns)
        lost += num_turns - sum(turn is not None for turn in kept)
    assert lost > 0


@pytest.mark.parametrize("video", briefest())
def test_kept_keys_of_ours_are_rotated_to_their_new_places(video: str) -> None:
    ours = Ours(video, tight(video, Strategy.DROP_MIDDLE))
    while ours.step().event is None:
        pass

    assert ours.decoder.cache is not None
    length = len(ours.decoder.cache)
    opening = prefix_ids(ours.chat, ours.script, {})
    prefix = len(opening) + len(text_ids(ours.chat, heard(ours.script, 0)))
    rows = torch.cat(ours.decoder.fed)
    assert prefix < length < len(rows)
    kept = torch.cat([rows[:prefix], rows[len(rows) - (length - prefix) :]])
    fresh = KVCache(ours.model.lm.config.num_hidden_layers)
    make_decoder(ours.model)(kept, fresh)
    # In the first layer a key is made of its own token and position alone.
    keys = [cache.layers[0].keys[:, :, :length] for cache in (ours.decoder.cache, fresh)]
    torch.testing.assert_close(*keys, atol=1e-4, rtol=0)


@pytest.mark.parametrize("video", briefest())
def test_drop_middle_of_ours_makes_room(video: str) -> None:
    config = tight(video, Strategy.DROP_MIDDLE)
    events = [output.event is not None for output in Ours(video, config).play().outputs]

    assert any(events)
    assert (True, True) not in itertools.pairwise(events)
    with pytest.raises(ConfigError, match="leaves no room for frames"):
        Ours(video, replace(config, window_tokens=config.max_context - config.reserve))


@pytest.mark.parametrize("video", briefest())
def test_summary_of_ours_is_written_whatever_the_head_says(video: str) -> None:
    ours = Ours(video, replace(tight(video, Strategy.SUMMARIZE), rise=0.1))
    read: list[Tensor] = []
    hook = ours.model.speak_head.register_forward_hook(lambda _m, _i, out: read.append(out))
    ours.play()
    hook.remove()

    events = [t for t, output in enumerate(ours.outputs) if output.event]
    assert events
    assert len(read) == len(ours.outputs)  # once a frame: no decision is asked for a summary
    query = ours.embed(summary_query(ours.chat))
    for t in events:
        asked = [i for i, fed in enumerate(ours.fed[t]) if torch.equal(fed[-len(query) :], query)]
        assert asked == [i for i, fed in enumerate(ours.fed[t]) if len(fed) > 1][-1:]
        # What waited goes first: the end of the turn before it. The frame is not fed again.
        waited = ours.fed[t][asked[0]][: -len(query)]
        closing = [ours.chat.end_of_turn_id] if ours.outputs[t].speak else []
        assert torch.equal(waited, ours.embed(closing) if closing else waited[:0])
    # The decision by differences compares frames, whatever was asked between them.
    probs = [output.speak_prob for output in ours.outputs]
    want = [p >= 0.5 or (t > 0 and p - probs[t - 1] > 0.1) for t, p in enumerate(probs)]
    assert [output.speak for output in ours.outputs] == want


@pytest.mark.parametrize("video", briefest())
def test_summary_of_ours_keeps_what_the_reference_said(video: str) -> None:
    config = replace(LIMITS, context=ContextSource.REFERENCE, words=False)
    lengths = [output.context_len for output in Ours(video, config).play().outputs]
    script = Ours(video, config).script
    full = next(t for t, m in enumerate(script.moments) if t > 20 and m.spans)

    ours = Ours(
        video,
        replace(config, strategy=Strategy.SUMMARIZE, max_context=lengths[full] + config.reserve),
    )
    while ours.step().event is None:
        pass

    assert len(ours.outputs) == full + 1
    spans = text_ids(ours.chat, script.moments[full].spans)
    fed = [*spans, *summary_query(ours.chat)]
    assert any(len(chunk) == len(fed) and begins(chunk, fed, ours) for chunk in ours.fed[full])


def test_generated_tokens_stay_when_more_are_generated() -> None:
    name = next(iter(MODELS))
    model, _ = load(name)
    frames = next(features(run) for run in RUNS if run["model"] == name)
    embeds = [model.project(frame)[None].detach() for frame in frames[:2]]

    first, past = model.fast_greedy_generate(embeds[0], None, max_length=6, not_talk_threshold=1.0)
    copy = first.clone()
    model.fast_greedy_generate(embeds[1], past, max_length=6, not_talk_threshold=1.0)

    assert torch.equal(first, copy)


@pytest.mark.parametrize("theta", [0.0, 1.0])
@pytest.mark.parametrize("video", briefest())
def test_silent_frames_of_ours_cost_no_vocabulary(
    video: str, theta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Ours(video, replace(LIMITS, theta_speak=theta))
    num_asked = 0

    def counting(hidden: Tensor, *, dst: bool = False) -> Tensor:
        nonlocal num_asked
        num_asked += 1
        assert hidden.ndim == 1  # of one position, not of all that was fed
        return AssistantModel.lm_logits(ours.model, hidden, dst=dst)

    monkeypatch.setattr(ours.model, "lm_logits", counting)
    ours.play(20)

    words = sum(len(fed) - 1 for fed in ours.fed)  # what is fed besides the frame asks for a token
    assert num_asked == words
    assert (words == 0) == (theta == 1.0)
