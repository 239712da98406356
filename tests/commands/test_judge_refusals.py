from __future__ import annotations

import re
from pathlib import Path

import pytest

from proassist_lit.commands.main import main
from tests.commands.judging import judge, make_run, metrics, said_on_stderr
from tests.commands.lines import Captured
from tests.judge.fakes import serve


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
