"""Small transcripts, and a server on loopback that speaks the protocol, well or badly."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from proassist_lit.judge.client import JudgeServer
from proassist_lit.judge.request import JudgeSettings, Request
from proassist_lit.types import FrameOutput, Reference, Transcript

SETTINGS = JudgeSettings(model="fake", repeats=1)
FOUR = '{"correctness": 4, "promptness": 3, "efficiency": 5, "overall": 2}'


def transcript(
    stream_id: str = "stream",
    *,
    said: Mapping[int, str] | None = None,
    reference: Mapping[int, str] | None = None,
    user: Mapping[int, str] | None = None,
    num_frames: int = 6,
) -> Transcript:
    """What is said at which frame; 2 frames a second, the first at 5 s."""
    said, user = said or {}, user or {}
    reference = {2: "Wash the pan."} if reference is None else reference
    frames = [
        FrameOutput(
            frame_idx=10 + i, time_s=(10 + i) / 2, speak_prob=0.5, dst_prob=None,
            speak=i in said, dst=False, text=said.get(i, ""), user_text=user.get(i, ""),
        )
        for i in range(num_frames)
    ]  # fmt: skip
    return Transcript(
        stream_id=stream_id, dataset="toy", fps=2.0, steps=(), frames=tuple(frames),
        references=tuple(Reference(text=reference.get(i, "")) for i in range(num_frames)),
    )  # fmt: skip


def request(text: str = "judge this", settings: JudgeSettings = SETTINGS) -> Request:
    return Request(stream_id=text, messages=(("user", text),), settings=settings, repeat=0)


def completion(text: str = FOUR, *, finish_reason: str = "stop", **changed: Any) -> str:
    """The body of a chat completion; 100 tokens in, 10 out."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish_reason,
    }
    body = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "fake-1",
        "choices": [choice],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }  # fmt: skip
    return json.dumps(body | changed)


def error_body(message: str, **fields: Any) -> str:
    return json.dumps({"error": {"message": message, "type": "error"} | fields})


@dataclass
class Reply:
    """How the server answers one request.

    Attributes:
        body: the body.
        status: the status.
        headers: further headers.
        send: send so many bytes of the body, then close the connection; None sends all.
        stall: say nothing until the server is closed.
        drip: send the body with a byte every few milliseconds, for ever.
    """

    body: str = field(default_factory=completion)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    send: int | None = None
    stall: bool = False
    drip: bool = False


Answerer = Callable[[str, int], Reply]
"""Makes the reply of a prompt's text (of its last message) and of how often it was asked before."""


class FakeServer:
    """What was asked, in order; and where."""

    def __init__(self, answerer: Answerer) -> None:
        self.answerer = answerer
        self.asked: list[dict[str, Any]] = []
        self.headers: list[Message] = []
        self.paths: set[str] = set()
        self.times_asked: Counter[str] = Counter()
        self.most_at_once = 0
        self.closing = threading.Event()
        self._at_once = 0
        self._lock = threading.Lock()
        self.url = ""

    def __call__(self, **changed: Any) -> JudgeServer:
        """This server for a client that hardly waits."""
        waits = {"timeout_s": 5.0, "max_tries": 3, "backoff_s": 0.001, "max_wait_s": 0.5}
        return JudgeServer(**({"base_url": self.url} | waits | changed))

    def reply(self, path: str, headers: Message, body: dict[str, Any]) -> Reply:
        prompt = body["messages"][-1]["content"]
        with self._lock:
            self.paths.add(path)
            self.asked.append(body)
            self.headers.append(headers)
            num_before = self.times_asked[prompt]
            self.times_asked[prompt] += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return self.answerer(prompt, num_before)
        finally:
            with self._lock:
                self._at_once -= 1


@contextmanager
def serve(answerer: Answerer = lambda _prompt, _times: Reply()) -> Iterator[FakeServer]:
    """A server on a free port of loopback."""
    fake = FakeServer(answerer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = fake.reply(self.path, self.headers, body)
            if reply.stall:
                fake.closing.wait(60)
                self.close_connection = True
                return
            data = reply.body.encode()
            self.send_response(reply.status)
            length = 10**6 if reply.drip else len(data)
            headers = {"Content-Type": "application/json", "Content-Length": str(length)}
            for name, value in (headers | dict(reply.headers)).items():
                self.send_header(name, value)
            self.end_headers()
            while reply.drip and not fake.closing.wait(0.005):
                self.wfile.write(b" ")
                self.wfile.flush()
            self.wfile.write(data[: reply.send])
            self.close_connection = reply.send is not None or reply.drip

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            pass  # the client went away: what it shall do here

    with Server(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield fake
        finally:
            fake.closing.set()
            server.shutdown()
            thread.join()
