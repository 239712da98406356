from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from proassist_lit.judge.answer import Answer
from proassist_lit.judge.answer_file import AnswerFile
from proassist_lit.judge.pairs import (
    RunComparison,
    common_streams,
    compare_runs,
    pair_requests,
)
from proassist_lit.report.judge_table import comparison_table
from tests.judge.fakes import SETTINGS, transcript


def chooses(overall: str, others: str = "tie") -> Answer:
    choices = dict.fromkeys(("correctness", "promptness", "efficiency"), others)
    return Answer(text=json.dumps(choices | {"overall": overall}))


def compare(
    path: Path, streams: Sequence[tuple[Sequence[str], Sequence[str]]], repeats: int = 1
) -> RunComparison:
    """Choices of each stream's answers: with this run as A, then with it as B; '-' is missing."""
    settings = replace(SETTINGS, repeats=repeats)
    pairs = [
        pair_requests(
            transcript(f"s{i}", said={1: f"{i} mine"}),
            transcript(f"s{i}", said={1: f"{i} theirs"}),
            settings,
        )
        for i in range(len(streams))
    ]
    with AnswerFile(path / "answers.jsonl").appending() as answers:
        for pair, ways in zip(pairs, streams, strict=True):
            for requests, choices in zip((pair.here_first, pair.there_first), ways, strict=True):
                for request, choice in zip(requests, choices, strict=True):
                    if choice != "-":
                        answers.add(request, chooses(choice))
        return compare_runs(pairs, answers, settings, {"only here": ("x",), "differ": ()})


def test_both_ways_show_the_two_dialogues_swapped() -> None:
    mine, theirs = transcript(said={1: "mine"}), transcript(said={1: "theirs"})
    pair = pair_requests(mine, theirs, SETTINGS)
    for requests, a, b in (
        (pair.here_first, "mine", "theirs"),
        (pair.there_first, "theirs", "mine"),
    ):
        text = requests[0].messages[1][1]
        assert f"<assistant_A>\n[5.5s] Assistant: {a}\n</assistant_A>" in text
        assert f"<assistant_B>\n[5.5s] Assistant: {b}\n</assistant_B>" in text


def test_which_way_is_asked_first_hangs_on_the_name_alone() -> None:
    first = {}
    for name in map(str, range(200)):
        for mine in ("x", "y"):
            one, other = transcript(name, said={1: mine}), transcript(name, said={1: "z"})
            pair = pair_requests(one, other, replace(SETTINGS, repeats=2))
            here, there = pair.here_first, pair.there_first
            ways = {
                (here[0], there[0], here[1], there[1]): "here",
                (there[0], here[0], there[1], here[1]): "there",
            }
            assert first.setdefault(name, ways[pair.in_order()]) == ways[pair.in_order()]
    assert 70 < sum(way == "here" for way in first.values()) < 130


def test_wins_need_more_than_the_place(tmp_path: Path) -> None:
    comparison = compare(
        tmp_path,
        [
            (["A"], ["B"]),  # this run, wherever it stands: won
            (["A"], ["tie"]),  # won
            (["B"], ["A"]),  # lost
            (["A"], ["A"]),  # whoever stands first: a tie
            (["B"], ["B"]),  # whoever stands second: a tie
            (["tie"], ["tie"]),
            (["A"], ["-"]),  # asked one way only: not counted
            (["?"], ["B"]),  # likewise
        ],
    )
    overall = comparison.aspect("overall")
    assert (overall.wins, overall.ties, overall.losses) == (2, 3, 1)
    assert (overall.num_first, overall.num_decided) == (5, 9)
    assert overall.num_agreeing == 3
    assert overall.p_value == pytest.approx(1.0)  # 2 of 3: (3 + 1 + 3 + 1) / 8
    assert (comparison.num_judged, comparison.num_missing) == (6, 1)
    assert comparison.unreadable == {"overall has no valid value": 1}
    other = comparison.aspect("promptness")
    assert (other.wins, other.ties, other.losses, other.p_value) == (0, 6, 0, 1.0)
    assert (other.num_first, other.num_decided, other.num_agreeing) == (0, 0, 6)


@pytest.mark.parametrize(
    ("num_wins", "num_losses", "p_value"),
    [
        (1, 0, 1.0),
        (5, 0, 2 / 2**5),
        (0, 6, 2 / 2**6),
        (7, 1, 2 * (1 + 8) / 2**8),
        (8, 2, 2 * (1 + 10 + 45) / 2**10),
        (4, 4, 1.0),
    ],
)
def test_sign_test_equals_the_sum_by_hand(
    tmp_path: Path, num_wins: int, num_losses: int, p_value: float
) -> None:
    won, lost, tied = (["A"], ["B"]), (["B"], ["A"]), (["tie"], ["tie"])
    found = compare(tmp_path, [won] * num_wins + [lost] * num_losses + [tied] * 3).aspect("overall")
    assert (found.wins, found.ties, found.losses) == (num_wins, 3, num_losses)
    assert found.p_value == pytest.approx(p_value)


def test_repeats_are_averaged_each_way(tmp_path: Path) -> None:
    found = compare(
        tmp_path,
        [
            (["A", "A", "B"], ["B", "tie", "A"]),  # +1/3 and 0: won
            (["A", "-", "-"], ["A", "A", "B"]),  # +1 and -1/3: won, though 2 of 4 are for it
            (["A", "A", "B"], ["B", "A", "A"]),  # +1/3 and -1/3: a tie, to the last bit
        ],
        repeats=3,
    ).aspect("overall")
    assert (found.wins, found.ties, found.losses) == (2, 1, 0)


def test_streams_are_paired_by_name_and_reference() -> None:
    here = [
        transcript("b", said={1: "x"}),
        transcript("a"),
        transcript("c"),
        transcript("d", user={0: "hi"}),
        transcript("e"),
    ]
    there = [
        transcript("e", reference={2: "Wash the pot."}),
        transcript("f"),
        transcript("d", user={0: "ho"}),
        transcript("b", said={1: "y"}),
        transcript("c", num_frames=9),
    ]
    common = common_streams(here, there)
    assert [(a.stream_id, b.stream_id) for a, b in common.pairs] == [("b", "b"), ("c", "c")]
    assert common.pairs[0] == (here[0], there[3])
    assert (common.only_here, common.only_there) == (("a",), ("f",))
    assert common.differing == ("d", "e")


def test_comparison_is_told_whole(tmp_path: Path) -> None:
    comparison = compare(tmp_path, [(["A"], ["B"]), (["A"], ["-"])])
    told = json.loads(json.dumps(comparison.to_json()))
    assert told["overall"] == {
        "wins": 1, "ties": 0, "losses": 0, "p_value": 1.0,
        "num_first": 1, "num_decided": 2, "num_agreeing": 1,
    }  # fmt: skip
    assert (told["num_streams"], told["num_missing"], told["model"]) == (1, 1, "fake")
    assert told["left_out"] == {"only here": ["x"], "differ": []}
    assert told["streams"]["s1"]["here_first"][0]["overall"] == "A"
    assert told["usage"]["num_answers"] == 3


def test_table_shows_wins_bias_and_agreement(tmp_path: Path) -> None:
    console = Console(width=140)
    with console.capture() as captured:
        comparison = compare(tmp_path, [(["A"], ["A"]), (["A"], ["B"])])
        console.print(comparison_table("test", "mine", "theirs", comparison))
    shown = captured.get()
    assert "test, judged by fake: mine against theirs, 2 streams" in shown
    row = shown.split("overall")[1].split()
    assert row[:10] == ["1", "1", "0", "1", "3", "of", "4", "1", "of", "2"]
