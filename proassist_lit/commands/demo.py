"""``proassist-lit demo``: a trained assistant watches the cameras of browsers."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proassist_lit.commands.assistant import add_assistant_options, load_run
from proassist_lit.errors import ConfigError

if TYPE_CHECKING:
    from proassist_lit.live.task import Task

SECURITY = """\
security:
  The server listens at the loopback address, where only this machine reaches it. Any other --host
  needs a token, which every client must give; put it into an environment variable, since
  everybody on a machine can read its command lines. Without TLS, which a proxy in front can add
  (name its address by --origin), whoever sees the network sees pictures and token; browsers show
  cameras to https:// pages and to localhost only. Pages of other origins are refused. A session's
  id is its key: unguessable, never logged. Frames, messages, sessions and their length are
  bounded, so is what waits: a busy server and a slow client lose frames, never memory. Pictures
  are decoded as JPEG only. Nothing is written to the disk without --record, and then only into a
  new folder for each session below it; tell your users.
"""


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of the program."""
    parser = commands.add_parser(
        "demo",
        help="serve a page on which a trained assistant watches a camera or a video",
        description="Serve a page on which a trained assistant watches the browser's camera, or a "
        "video chosen there. Needs the extra demo (pip install -e '.[demo]').",
        epilog=SECURITY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_assistant_options(parser)
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="NAME_OR_JSON",
        help="prompt and steps to choose from, as of watch; may be repeated (default: the first "
        "recordings of test)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: loopback)"
    )
    parser.add_argument(
        "--port", type=int, default=8000, metavar="N", help="port to listen at (default: 8000)"
    )
    parser.add_argument(
        "--token-env", metavar="NAME", help="environment variable that holds the token"
    )
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="further address that the page is reached by: of a proxy (others reach it, so with "
        "--token-env), or http://localhost:9000 where ssh -L 9000:localhost:8000 leads here",
    )
    parser.add_argument(
        "--max-sessions",
        type=int,
        default=4,
        metavar="N",
        help="sessions at once, each with a "
        "context of up to stream.max_context tokens (default: 4)",
    )
    parser.add_argument(
        "--max-minutes", type=float, default=30, metavar="M", help="of a session (default: 30)"
    )
    parser.add_argument(
        "--max-frame-kib", type=int, default=512, metavar="K", help="of a frame (default: 512)"
    )
    parser.add_argument(
        "--record", type=Path, metavar="DIR", help="keep what is watched and answered below DIR"
    )
    parser.set_defaults(run_command=demo)


_SUGGESTED = 12
"""Recordings that the page offers where no task is named."""


def demo(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    try:
        from proassist_lit.demo.server import create_app, make_server
    except ImportError as error:
        raise ConfigError(
            f"the demo needs {error.name}, which is not installed: pip install -e "
            "'.[demo]' in the folder of the repository."
        ) from error
    from proassist_lit.demo.access import Access
    from proassist_lit.demo.limits import Limits

    limits = Limits(
        max_sessions=arguments.max_sessions,
        max_minutes=arguments.max_minutes,
        max_frame_kib=arguments.max_frame_kib,
    )
    token = _read_token(arguments.token_env)
    origins = tuple(origin.rstrip("/") for origin in arguments.origin)
    Access(host=arguments.host, token=token)  # before anybody could connect
    with _listen(arguments.host, arguments.port) as listening:
        port = listening.getsockname()[1]
        access = Access(host=arguments.host, port=port, token=token, origins=origins)
        loaded = load_run(arguments)
        chosen = [loaded.task(wanted) for wanted in arguments.task] or loaded.suggested(_SUGGESTED)
        tasks = {task.name: task for task in chosen}
        if arguments.task:
            _check_names(chosen, arguments.task)
        # Compiled, and limits that are wrong told, now: not to every visitor.
        for task in chosen:
            loaded.assistant.session(task)
        app = create_app(loaded.assistant, tasks, access, limits, record=arguments.record)
        shown = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        sys.stdout.write(f"http://{shown}:{port}/ (Ctrl-C ends it)\n")
        sys.stdout.flush()
        make_server(app, limits).run(sockets=[listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """A socket at this address; what connects waits until the server is there."""
    try:
        if not 0 <= port < 65536:  # the library would take the rest of a division
            raise OSError("there is no such port")
        (family, *_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: the server cannot listen there ({error}); choose others."
        ) from error


def _check_names(tasks: Sequence[Task], asked: Sequence[str]) -> None:
    """Refuse tasks of one name, of which the page could offer the last one only."""
    first: dict[str, str] = {}
    for task, wanted in zip(tasks, asked, strict=True):
        if task.name in first:
            raise ConfigError(
                f"--task {first[task.name]} and --task {wanted} are both called {task.name!r}; "
                "leave one out, or rename its file."
            )
        first[task.name] = wanted


def _read_token(name: str | None) -> str:
    if name is None:
        return ""
    token = os.environ.get(name, "")
    if not token:
        raise ConfigError(
            f"--token-env {name}: there is no such environment variable, or it is empty; set it: "
            f"export {name}=$(python -c 'import secrets; print(secrets.token_urlsafe(24))')."
        )
    return token
