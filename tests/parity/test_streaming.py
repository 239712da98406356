"""Streaming, frame by frame, against numbers made by the reference's own code."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from proassist_lit.sequence.builder import text_ids
from proassist_lit.streaming.arrivals import heard
from proassist_lit.streaming.reference import reference_turn
from proassist_lit.streaming.reference_context import ReferenceCall
from proassist_lit.types import FrameOutput
from tests.parity.numbers import needs
from tests.parity.streams import (
    EVENTS,
    RUNS,
    VIDEOS,
    features,
    kind,
    load,
    play,
    script_of,
    settings,
)

pytestmark = needs(
    "streaming.json", "streaming.safetensors", "losses.safetensors", "known_reference_bugs.json"
)


def pairs(run: dict[str, Any]) -> set[Any]:
    facets = (
        ("strategy", run["strategy"]), ("model", run["model"]), ("kind", kind(run)),
        ("gt", run["use_gt_context"]),
    )  # fmt: skip
    return set(itertools.combinations(facets, 2))


def representative(runs: Sequence[dict[str, Any]]) -> set[int]:
    """A few runs that show every pair of strategy, model, threshold and context that there is."""
    missing = set().union(*map(pairs, runs))
    chosen = set()
    while missing:
        gain = [len(missing & pairs(run)) / len(run["frames"]) for run in runs]
        best = gain.index(max(gain))
        missing -= pairs(runs[best])
        chosen.add(best)
    return chosen


QUICK = representative(RUNS)


def run_parameters() -> list[Any]:
    return [
        pytest.param(
            run,
            id=f"{i}-{run['video']}-{run['strategy']}-{run['not_talk_threshold']}"
            f"{'-gt' if run['use_gt_context'] else ''}",
            marks=() if i in QUICK else pytest.mark.slow,
        )
        for i, run in enumerate(RUNS)
    ]


def discrete(call: ReferenceCall) -> dict[str, Any]:
    return {
        "input_ids": list(call.input_ids),
        "ids": list(call.output_ids),
        "cache_in": call.cache_in,
        "cache_gen": call.cache_out,
    }


@pytest.mark.parametrize("run", run_parameters())
def test_stepping_equals_the_reference(run: dict[str, Any]) -> None:
    outputs, traces = play(run, settings(run))

    assert len(traces) == len(run["frames"])
    for i, (trace, want) in enumerate(zip(traces, run["frames"], strict=True)):
        got = discrete(trace.frame) | {
            "cache_end": trace.cache_end,
            "init_cache": trace.init_cache,
            "event": EVENTS.get(trace.event or "", trace.event),
        }
        assert got == {name: want[name] for name in got}, f"frame {i}"
        assert trace.frame.not_talk_prob == pytest.approx(want["p"], abs=1e-4), f"frame {i}"
        summary = want.get("summary")
        assert (trace.summary is None) == (summary is None), f"frame {i}"
        if trace.summary is not None:
            got = discrete(trace.summary)
            got |= {"text": trace.summary_text, "next_text": trace.next_text}
            assert got == {name: summary[name] for name in got}, f"summary at frame {i}"
            assert trace.summary.not_talk_prob == pytest.approx(summary["p"], abs=1e-4)
    assert predictions(run, outputs) == run["predictions"]


def predictions(run: dict[str, Any], outputs: list[FrameOutput]) -> list[dict[str, Any]]:
    """Frames with any text, in the reference's form; its time is that of the frame's end."""
    script, first = script_of(run), VIDEOS[run["video"]]["start_frame_idx"]
    made = []
    for i, (output, moment) in enumerate(zip(outputs, script.moments, strict=True)):
        texts = [[text.role.value, text.content] for text in heard(script, i)]
        if i == 0 and script.prompt:
            texts.insert(0, ["system", script.prompt])
        ref = reference_turn(moment.spans) or ""
        assert output.time_s == (output.frame_idx) / 2.0
        if output.text or ref or texts:
            made.append({
                "i": i,
                "gen": output.text,
                "ref": ref,
                "text_inputs": texts,
                "frame_idx_in_original_video": output.frame_idx,
                "t": (output.frame_idx - first + 1) / 2.0,
            })  # fmt: skip
    return made


@pytest.mark.parametrize("i", sorted(QUICK)[::5])
def test_outputs_tell_what_the_trace_does(i: int) -> None:
    """In our polarity, and with all that waits to be fed."""
    run = RUNS[i]
    outputs, traces = play(run, settings(run))
    (_, chat), script, k = load(run["model"]), script_of(run), features(run).shape[1]

    for output, trace in zip(outputs, traces, strict=True):
        assert output.speak_prob == 1 - trace.frame.not_talk_prob
        assert output.speak == (trace.frame.output_ids != (chat.silent_id,))
        assert output.event == trace.event
    for t, (trace, following) in enumerate(itertools.pairwise(traces)):
        if trace.event != "summarize":  # which loses what waits
            waited = outputs[t].context_len - trace.frame.cache_out
            heard_ids = text_ids(chat, heard(script, t + 1))
            assert len(following.frame.input_ids) == waited + len(heard_ids) + k
