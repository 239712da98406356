from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from proassist_lit.commands.main import main
from tests.commands.judging import judge, make_run, metrics, said_on_stderr
from tests.commands.lines import Captured
from tests.judge.fakes import FOUR, Reply, completion, serve


@pytest.mark.road
def test_judge_scores_a_run_and_asks_nothing_twice(run: Path, capsys: Captured) -> None:
    with serve() as fake:
        assert judge(run, fake, "--price-in", "10", "--price-out", "50") == 0
        out, err = capsys.readouterr()
        assert judge(run, fake) == 0
    assert err == ""
    assert "test, judged by fake: 4 streams, scores 1 to 5" in out
    assert re.search(r"correctness +4\.00 ", out)
    said = "12 answers, 1,200 tokens in, 120 out, cost 0.0180\n"
    assert f"asked now: {said}all in all: {said}" in out
    again = capsys.readouterr().out
    assert "asked now: 0 answers, 0 tokens in, 0 out\nall in all: 12 answers, 1,200" in again
    assert fake.times_asked.total() == 12
    assert set(fake.times_asked.values()) == {3}
    assert metrics(run) == {
        "test/utterance_f1": 0.5, "judge/val/overall": 1,
        "judge/test/correctness": 4.0, "judge/test/promptness": 3.0,
        "judge/test/efficiency": 5.0, "judge/test/overall": 2.0, "judge/test/num_streams": 4,
        "judge/test/num_unreadable": 0, "judge/test/num_missing": 0, "judge/test/model": "fake",
    }  # fmt: skip
    told = json.loads((run / "judge.json").read_text())
    assert told["scores"]["test"]["streams"]["s3"]["correctness"] == 4.0


def test_answers_of_one_server_are_not_those_of_another(run: Path) -> None:
    with serve() as mine, serve(lambda *_: Reply(body=completion(FOUR.replace("4", "1")))) as other:
        assert judge(run, mine) == judge(run, other) == 0
        assert metrics(run)["judge/test/correctness"] == 1.0
        assert judge(run, mine) == 0
    assert metrics(run)["judge/test/correctness"] == 4.0
    assert (mine.times_asked.total(), other.times_asked.total()) == (12, 12)


def test_judge_of_a_part_forgets_older_values_of_its_split_only(run: Path) -> None:
    with serve() as fake:
        assert judge(run, fake, "--repeats", "1") == 0
    assert metrics(run)["judge/test/overall"] == 2.0
    with serve(lambda *_: Reply(body=completion("?"))) as fake:
        assert judge(run, fake, "--repeats", "1", "--max-streams", "1", "--max-tokens", "9") == 1
    assert "judge/test/overall" not in metrics(run)
    assert metrics(run)["judge/val/overall"] == 1
    assert fake.times_asked.total() == 1


def test_unreadable_answers_are_counted(run: Path, capsys: Captured) -> None:
    def answer(prompt: str, _times: int) -> Reply:
        if "mine s0" in prompt:
            return Reply(body=completion("All fine!"))
        return Reply(
            body=completion(FOUR[:30], finish_reason="length" if "s1" in prompt else "stop")
        )

    def better(prompt: str, _times: int) -> Reply:
        return Reply() if "mine s3" in prompt else answer(prompt, 0)

    with serve(better) as fake:
        assert judge(run, fake, "--repeats", "1") == 0
    [line] = said_on_stderr(capsys)
    assert line.startswith("error: judge: 3 of 4 answers are unreadable and not counted: ")
    for reason in ("no JSON object with", r"ended early \(length\)", "correctness is missing"):
        assert re.search(f"1 x .*{reason}", line)
    assert metrics(run)["judge/test/num_unreadable"] == 3
    assert metrics(run)["judge/test/num_streams"] == 1

    with serve(answer) as fake:
        assert judge(run, fake, "--repeats", "1", "--temperature", "0") == 1
        assert judge(run, fake, "--repeats", "1", "--temperature", "0") == 1
    assert fake.times_asked.total() == 4
    assert "nothing could be judged; read the answers in" in said_on_stderr(capsys)[-1]


def test_dry_run_asks_nothing_and_writes_nothing(run: Path, capsys: Captured) -> None:
    before = sorted(run.rglob("*"))
    options = ["--repeats", "2", "--max-tokens", "100", "--price-in", "1", "--price-out", "1"]
    assert main(["judge", str(run), "--dry-run", *options]) == 0
    out = capsys.readouterr().out
    asked = "4 streams, 8 requests to gpt-4o-mini at api.openai.com:443/v1"
    assert f"{asked}: 0 answered already, 8 to ask\n" in out
    assert re.search(r"about \d,\d\d\d tokens in .*, at most 800 out\n", out)
    assert "cost: at most about 0.00" in out
    assert sorted(run.rglob("*")) == before
    with serve() as fake:
        assert judge(run, fake, "--max-streams", "3", "--repeats", "1") == 0
        capsys.readouterr()
        assert judge(run, fake, "--dry-run") == 0
    where = fake.url.removeprefix("http://")
    said = f"12 requests to fake at {where}: 3 answered already, 9 to ask"
    assert said in capsys.readouterr().out
    assert fake.times_asked.total() == 3


def test_two_runs_are_compared_both_ways(run: Path, tmp_path: Path, capsys: Captured) -> None:
    other = make_run(tmp_path / "other", "theirs", ("s1", "s2", "s9", "s3"))

    def answer(prompt: str, _times: int) -> Reply:
        is_first = "mine" in prompt.partition("<assistant_B>")[0]
        overall = "A" if is_first or "s3" in prompt else "B"  # mine; on s3 whoever is first
        choices = dict.fromkeys(("correctness", "promptness", "efficiency"), "tie")
        return Reply(body=completion(json.dumps(choices | {"overall": overall})))

    with serve(answer) as fake:
        for _ in range(2):
            assert judge(run, fake, "--against", str(other), "--repeats", "1") == 0
    assert fake.times_asked.total() == 6
    out = capsys.readouterr().out
    assert "test, judged by fake: run against other, 3 streams" in out
    row = out.split("overall")[1].split()
    assert row[:10] == ["2", "1", "0", "0.5", "4", "of", "6", "2", "of", "3"]
    assert f"left out, only in {run}: s0\n" in out
    assert f"left out, only in {other}: s9\n" in out
    told = json.loads((run / "judge.json").read_text())["against"]["../other"]["test"]
    assert told["overall"]["wins"] == 2
    assert told["left_out"][f"only in {other}"] == ["s9"]
    assert metrics(run) == {"test/utterance_f1": 0.5, "judge/val/overall": 1}


def test_server_and_key_are_those_that_were_named(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as fake:
        monkeypatch.setenv("OPENAI_BASE_URL", fake.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
        options = ["judge", str(run), "--repeats", "1", "--max-streams", "1"]
        assert main(options) == 0
        assert main([*options, "--model", "other", "--key-env", "OPENAI_API_KEY"]) == 0
    keys = [headers["Authorization"] for headers in fake.headers]
    assert keys == ["Bearer none", "Bearer sk-1"]


def test_public_server_is_asked_only_with_a_key_that_was_named(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from proassist_lit.judge import client

    monkeypatch.setenv("JUDGE_KEY", "sk-1")
    with serve() as fake:
        monkeypatch.setattr(client, "_PUBLIC", fake.url)
        argv = ["judge", str(run), "--key-env", "JUDGE_KEY", "--repeats", "1"]
        assert main(argv) == 0
    assert {headers["Authorization"] for headers in fake.headers} == {"Bearer sk-1"}
