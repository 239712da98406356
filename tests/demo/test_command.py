"""``proassist-lit demo`` up to the moment at which it listens."""

from __future__ import annotations

import argparse
import re
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proassist_lit.commands.assistant import LoadedRun, load_run
from proassist_lit.commands.main import main
from proassist_lit.demo import server
from proassist_lit.demo.access import Access
from proassist_lit.demo.limits import Limits
from tests.live.conftest import run  # noqa: F401 - a fixture
from tests.live.trained import TrainedRun

from . import servers  # noqa: F401 - skips where the extra is missing

pytestmark = pytest.mark.road

Captured = pytest.CaptureFixture[str]


def test_the_demo_serves_the_run_and_the_tasks_that_are_asked_for(
    run: TrainedRun,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    made = []

    def make_server(app: Any, limits: Limits) -> SimpleNamespace:
        def run(sockets: list[socket.socket]) -> None:
            made.append((app, limits, sockets[0].getsockname()))

        return SimpleNamespace(run=run)

    accesses: list[Access] = []
    recorded: list[Path | None] = []
    create = server.create_app

    def create_app(
        assistant: Any, tasks: Any, access: Access, limits: Limits, *, record: Path | None
    ) -> Any:
        accesses.append(access)
        recorded.append(record)
        return create(assistant, tasks, access, limits, record=record)

    monkeypatch.setattr(server, "create_app", create_app)
    monkeypatch.setattr(server, "make_server", make_server)
    monkeypatch.setenv("DEMO_TOKEN", "x" * 24)
    (tmp_path / "tea.json").write_text('{"prompt": "Help.", "steps": ["boil", "steep"]}')
    asked = ["--task", str(tmp_path / "tea.json"), "--task", run.conversation.id]
    kept = ["--origin", "https://demo.example.org/", "--record", str(tmp_path / "kept")]
    bounds = ["--max-sessions", "2", "--max-minutes", "5", "--max-frame-kib", "64"]
    where = ["--host", "0.0.0.0", "--port", "0", "--token-env", "DEMO_TOKEN"]
    assert main(["demo", str(run.folder), "--device", "cpu", *asked, *bounds, *where, *kept]) == 0
    ((app, limits, (host, port)),) = made
    assert capsys.readouterr().out == f"http://0.0.0.0:{port}/ (Ctrl-C ends it)\n"
    assert (limits.max_sessions, limits.max_minutes, limits.max_frame_bytes) == (2, 5.0, 65536)
    assert host == "0.0.0.0"
    sessions = app.state.sessions
    assert list(sessions.tasks) == ["tea", run.conversation.id]
    assert sessions.assistant.config == run.config.stream
    assert recorded == [tmp_path / "kept"]
    (access,) = accesses
    for origin, may in (("https://demo.example.org", True), ("https://example.org", False)):
        assert access.allows(origin, f"10.0.0.1:{port}") == may

    assert main(["demo", str(run.folder), "--device", "cpu", "--port", "0"]) == 0
    assert list(made[1][0].state.sessions.tasks) == [run.conversation.id]
    assert recorded[1] is None
    assert list(accesses[1].origins) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], r"--host 0\.0\.0\.0: others can reach .* token is needed"),
        (["--token-env", "NO_SUCH"], "--token-env NO_SUCH: there is no such environment variable"),
        (["--port", "99999"], "--port 99999: the server cannot listen there"),
        (["--max-sessions", "0"], "--max-sessions 0: must be at least 1"),
        (["--task", "nowhere"], "task 'nowhere': is no JSON file and no recording"),
        (["--set", "stream.reserve=20"], "stream.reserve is 20, but one frame and what may be"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_served(
    run: TrainedRun,  # noqa: F811
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    monkeypatch.setattr(
        "proassist_lit.demo.server.make_server", lambda *_: pytest.fail("it is served")
    )
    assert main(["demo", str(run.folder), "--device", "cpu", "--port", "0", *options]) == 2
    assert re.search(f"error: .*{message}", capsys.readouterr().err)


def test_tasks_of_one_name_are_refused(
    run: TrainedRun,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "proassist_lit.demo.server.make_server", lambda *_: pytest.fail("it is served")
    )
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tea.json").write_text('{"prompt": "Help."}')
    asked = ["--task", "a/tea.json", "--task", run.conversation.id, "--task", "b/tea.json"]
    assert main(["demo", str(run.folder), "--device", "cpu", "--port", "0", *asked]) == 2
    said = capsys.readouterr().err
    assert "--task a/tea.json and --task b/tea.json are both called 'tea'; leave one out" in said


def test_no_steps_are_offered_to_a_model_that_follows_none(
    run: TrainedRun,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = []

    def without_head(arguments: argparse.Namespace) -> LoadedRun:
        loaded = load_run(arguments)
        loaded.assistant.model.dst_head = None
        return loaded

    def make_server(app: Any, _limits: Limits) -> SimpleNamespace:
        return SimpleNamespace(run=lambda sockets: served.append(app.state.sessions.tasks))

    monkeypatch.setattr(server, "make_server", make_server)
    command = ["demo", str(run.folder), "--device", "cpu", "--port", "0"]
    assert main(command) == 0
    monkeypatch.setattr("proassist_lit.commands.demo.load_run", without_head)
    assert main(command) == 0
    assert main([*command, "--task", run.conversation.id]) == 0
    followed, suggested, named = (tasks[run.conversation.id] for tasks in served)
    assert len(followed.steps) > 1
    assert suggested == named == followed.without_steps()


def test_an_address_that_is_taken_is_told(
    run: TrainedRun,  # noqa: F811
    capsys: Captured,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["demo", str(run.folder), "--device", "cpu", "--port", port]) == 2
    assert f"--port {port}: the server cannot listen there" in capsys.readouterr().err


def test_a_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.delitem(sys.modules, "proassist_lit.demo.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["demo", "run"]) == 2
    assert "pip install -e '.[demo]'" in capsys.readouterr().err


def test_help_tells_what_is_safe(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    said = capsys.readouterr().out
    for word in ("loopback", "token", "origin", "--record", "TLS"):
        assert word in said
