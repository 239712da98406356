from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from proassist_lit.run_directory import RunDirectory
from tests.commands.judging import judge, make_run, metrics, said_on_stderr
from tests.commands.lines import Captured
from tests.judge.fakes import Reply, error_body, serve


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


def test_the_run_that_was_latest_at_the_start_gets_the_scores(run: Path) -> None:
    later = make_run(run.parent / "later", "another")
    RunDirectory(later).write_metrics({"test/utterance_f1": 0.5})
    RunDirectory(run).point_latest(run.parent)

    def answer(*_: object) -> Reply:
        RunDirectory(later).point_latest(run.parent)  # a training begins
        return Reply()

    with serve(answer) as fake:
        assert judge(run.parent / "latest", fake, "--repeats", "1") == 0
    assert metrics(later) == {"test/utterance_f1": 0.5}
    assert metrics(run)["judge/test/num_streams"] == 4


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
