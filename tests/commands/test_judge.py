from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from proassist_lit.commands.main import main
from proassist_lit.run_directory import RunDirectory
from tests.judge.fakes import FOUR, FakeServer, Reply, completion, error_body, serve, transcript

Captured = pytest.CaptureFixture[str]

WAITS = ["--backoff-s", "0.001", "--tries", "2", "--timeout-s", "5"]


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "JUDGE_KEY"):
        monkeypatch.delenv(variable, raising=False)


def make_run(path: Path, said: str, names: Sequence[str] = ("s0", "s1", "s2", "s3")) -> Path:
    run = RunDirectory(path)
    streams = [transcript(name, said={1: f"{said} {name}"}) for name in names]
    for stream in streams:
        run.write_stream("test", stream)
    run.write_stream_index({"test": streams})
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An evaluated run of four test streams."""
    make_run(tmp_path / "run", "mine")
    RunDirectory(tmp_path / "run").write_metrics({"test/utterance_f1": 0.5, "judge/val/overall": 1})
    return tmp_path / "run"


def judge(run: Path, fake: FakeServer | None, *options: str) -> int:
    server = [] if fake is None else ["--base-url", fake.url, *WAITS]
    return main(["judge", str(run), "--model", "fake", *server, *options])


def metrics(run: Path) -> dict[str, object]:
    return json.loads((run / "metrics.json").read_text())


def said_on_stderr(capsys: Captured) -> list[str]:
    return capsys.readouterr().err.splitlines()


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


def test_judge_of_a_part_forgets_older_values_of_its_split_only(run: Path) -> None:
    with serve() as fake:
        assert judge(run, fake, "--repeats", "1") == 0
    assert metrics(run)["judge/test/overall"] == 2.0
    with serve(lambda *_: Reply(body=completion("?"))) as fake:
        assert judge(run, fake, "--repeats", "1", "--max-streams", "1", "--max-tokens", "9") == 1
    assert "judge/test/overall" not in metrics(run)
    assert metrics(run)["judge/val/overall"] == 1
    assert fake.times_asked.total() == 1


def test_judge_ends_with_cause_and_count_and_goes_on_where_it_was(
    run: Path, capsys: Captured
) -> None:
    def answer(prompt: str, _times: int) -> Reply:
        fails = "mine s2" in prompt and fake.failing  # type: ignore[attr-defined]
        return Reply(status=500, body=error_body("boom")) if fails else Reply()

    with serve(answer) as fake:
        fake.failing = True  # type: ignore[attr-defined]
        assert judge(run, fake, "--repeats", "1") == 1
        assert said_on_stderr(capsys) == [
            "error: judge: 1 of 4 answers are missing.",
            "error: judge: 1 request failed: HTTP 500: boom",
            f"error: judge: the 3 answers there are stand in {run / 'judge_answers.jsonl'} and are "
            "counted above; run the same command again to ask for the missing ones alone.",
        ]
        assert metrics(run)["judge/test/num_missing"] == 1
        assert metrics(run)["judge/test/num_streams"] == 3
        assert metrics(run)["judge/test/overall"] == 2.0
        fake.failing = False  # type: ignore[attr-defined]
        assert judge(run, fake, "--repeats", "1") == 0
    assert metrics(run)["judge/test/num_missing"] == 0
    # Two tries of the one that failed, and one that did not.
    assert sorted(fake.times_asked.values()) == [1, 1, 1, 3]


def test_judge_with_a_bad_key_stops_at_once_and_writes_the_key_nowhere(
    run: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    refusal = Reply(status=401, body=error_body("Incorrect API key: sk-very-secret"))
    with serve(lambda *_: refusal) as fake:
        assert judge(run, fake, "--key-env", "JUDGE_KEY", "--concurrency", "1") == 1
    assert fake.times_asked.total() == 1
    assert fake.headers[0]["Authorization"] == "Bearer sk-very-secret"
    err = capsys.readouterr().err
    assert "1 request failed: HTTP 401: Incorrect API key: [key]\n" in err
    assert "11 not asked any more: the server refuses" in err
    for path in (path for path in run.rglob("*") if path.is_file()):
        assert "secret" not in path.read_text()


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
    assert "4 streams, 8 requests to gpt-4o-mini: 0 answered already, 8 to ask\n" in out
    assert re.search(r"about \d,\d\d\d tokens in .*, at most 800 out\n", out)
    assert "cost: at most about 0.00" in out
    assert sorted(run.rglob("*")) == before
    with serve() as fake:
        assert judge(run, fake, "--max-streams", "3", "--repeats", "1") == 0
        capsys.readouterr()
        assert judge(run, fake, "--dry-run") == 0
    assert "12 requests to fake: 3 answered already, 9 to ask" in capsys.readouterr().out
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


@pytest.mark.road
def test_killed_in_the_middle_nothing_that_was_answered_is_asked_again(run: Path) -> None:
    third = threading.Event()

    def answer(_prompt: str, _times: int) -> Reply:
        # The client asks one at a time: with the third request, two answers are known to have come.
        if fake.times_asked.total() == 3:
            third.set()
            return Reply(stall=True)
        return Reply()

    with serve(answer) as fake:
        argv = ["judge", str(run), "--model", "fake", "--base-url", fake.url]
        options = ["--repeats", "1", "--concurrency", "1"]
        program = "import sys; from proassist_lit.commands.main import main; sys.exit(main())"
        with subprocess.Popen([sys.executable, "-c", program, *argv, *options]) as process:
            assert third.wait(30)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        killed = fake.asked[2]["messages"][-1]["content"]
        assert judge(run, fake, *options) == 0
    assert len(fake.times_asked) == 4
    assert {prompt: n for prompt, n in fake.times_asked.items() if n > 1} == {killed: 2}
    assert metrics(run)["judge/test/num_streams"] == 4


def test_ctrl_c_waits_for_the_answer_under_way_and_keeps_it(run: Path, capsys: Captured) -> None:
    def answer(_prompt: str, _times: int) -> Reply:
        if fake.times_asked.total() == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return Reply()

    options = ["--repeats", "1", "--concurrency", "1"]
    with serve(answer) as fake:
        assert judge(run, fake, *options) == 130
        assert fake.times_asked.total() == 2
        assert judge(run, fake, *options) == 0
    assert set(fake.times_asked.values()) == {1}
    err = said_on_stderr(capsys)
    assert err[-1] == "interrupted"
    assert "is kept in" in err[-2]
    assert not list(run.glob(".*.part"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], r"judge: no server is given; give --base-url http://.*or --key-env OPENAI_API_KEY"),
        (["--key-env", "JUDGE_KEY"], r"--key-env JUDGE_KEY: no such environment variable is set"),
        (["--base-url", "localhost:8000"], r"'localhost:8000' is no address of a server"),
        (["--price-in", "1"], r"one of --price-in and --price-out alone tells no cost"),
        (["--price-in", "1", "--price-out", "-1"], r"must be at least 0"),
        (["--split", "val"], r"--split val: \S+run holds no such streams; it has test"),
        (["--repeats", "0"], r"repeats must be at least 1, got 0"),
        (["--against", "nowhere"], r"nowhere: is no directory of a run"),
        (["--base-url", "http://h/v1", "--timeout-s", "0"], r"timeout_s must be above 0"),
    ],
)
def test_judge_refuses_in_one_line(
    options: list[str], said: str, run: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")  # set, but nobody said to use it
    assert main(["judge", str(run), *options]) == 2
    [line] = said_on_stderr(capsys)
    assert re.search(said, line)
    assert not (run / "judge_answers.jsonl").exists()


def test_judge_refuses_what_is_no_run(tmp_path: Path, run: Path, capsys: Captured) -> None:
    assert main(["judge", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()
    assert "none: is no directory of a run; give one" in said_on_stderr(capsys)[0]
    (tmp_path / "empty").mkdir()
    assert main(["judge", str(tmp_path / "empty")]) == 2
    assert "streams.json: cannot be read" in said_on_stderr(capsys)[0]
    other = make_run(tmp_path / "other", "theirs", ("s8",))
    assert main(["judge", str(run), "--against", str(other)]) == 2
    assert "share no stream of test; compare runs that" in said_on_stderr(capsys)[0]


@pytest.mark.parametrize(("text", "said"), [("{", "cannot be read"), ("[]", "holds no object")])
def test_judge_asks_nothing_while_its_results_cannot_be_kept(
    text: str, said: str, run: Path, capsys: Captured
) -> None:
    with serve() as fake:
        (run / "metrics.json").write_text(text)
        assert judge(run, fake) == 2
        assert re.search(rf"metrics\.json: {said}.*evaluate the run", said_on_stderr(capsys)[0])
        (run / "metrics.json").unlink()
        (run / "judge.json").write_text(text)
        assert judge(run, fake) == 2
        assert re.search(rf"judge\.json: {said}", said_on_stderr(capsys)[0])
        assert not fake.asked
        (run / "judge.json").unlink()
        assert judge(run, fake, "--repeats", "1") == 0
    assert metrics(run)["judge/test/overall"] == 2.0


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
