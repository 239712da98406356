"""A demo server on loopback with a tiny model, and clients that are no browsers."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from proassist_lit.demo.limits import Limits
from proassist_lit.live.assistant import LiveAssistant
from proassist_lit.live.task import Task
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.script import Text
from proassist_lit.streaming.config import Kernels, StreamConfig
from proassist_lit.vision.encoder import FrameEncoder
from tests.fakes import NOT_STARTED, STEPS, VISION_SIZE, Words, tiny_model, word_chat

pytest.importorskip("fastapi", reason="the extra demo is not installed")
pytest.importorskip("uvicorn", reason="the extra demo is not installed")

import uvicorn
from fastapi import WebSocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from proassist_lit.demo.access import Access
from proassist_lit.demo.server import create_app, make_server
from proassist_lit.demo.sessions import Sessions

UTTERANCES = ("first wash", "well done now", "wait")
UPDATES = ("S1->start", "S1->complete;S2->start", "S2->complete")
TASKS = {
    "soup": Task(
        name="soup", prompt="please help", steps=STEPS, initial_state=NOT_STARTED,
        opening=(Text(role=Role.SYSTEM, content="Task knowledge: wash. peel."),),
    ),
    "none": Task(name="none", prompt="please help"),
}  # fmt: skip


class Colours(FrameEncoder):
    """Features that are the mean colours of the upper and the lower half."""

    name, revision, width, preprocessing = "colours", "1", VISION_SIZE, "average"
    wait_s = 0.0

    def prepare(self, frames: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(frames)

    def encode_prepared(self, prepared: Tensor, grids: Sequence[str]) -> dict[str, Tensor]:
        if self.wait_s:
            time.sleep(self.wait_s)
        halves = torch.stack([half.float().mean(dim=(1, 2)) for half in prepared.chunk(2, dim=1)])
        features = (halves.transpose(0, 1).reshape(len(prepared), 1, -1) / 64 - 2).half()
        return dict.fromkeys(grids, features)


def tiny_assistant(theta_speak: float = 0.5, theta_dst: float = 0.5) -> LiveAssistant:
    chat = word_chat()
    model = tiny_model(dtype=torch.float32, chat=chat)
    model.words = Words(chat, UTTERANCES, UPDATES)
    config = StreamConfig(
        theta_speak=theta_speak, theta_dst=theta_dst, kernels=Kernels.TORCH, max_new_tokens=8,
        max_dst_tokens=8, max_context=2048, reserve=64,
    )  # fmt: skip
    return LiveAssistant(
        model=model, chat=chat, config=config, encoder=Colours(), num_tokens_per_img=1, fps=4.0
    )


def jpeg(number: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    """A picture whose colours depend on ``number``."""
    colours = np.random.default_rng(number).integers(0, 256, (2, 1, 3), dtype=np.uint8)
    picture = Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)
    out = io.BytesIO()
    picture.save(out, "JPEG")
    return out.getvalue()


@dataclass
class Served:
    """A server that is up."""

    port: int
    sessions: Sessions
    server: uvicorn.Server
    assistant: LiveAssistant

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **hello: str) -> Client:
        return Client(self, hello)

    def drop_connections(self) -> None:
        """Let all connections break as a network does."""
        for connection in list(self.server.server_state.connections):
            protocol: Any = connection
            protocol.loop.call_soon_threadsafe(protocol.transport.abort)


@contextmanager
def serving(
    assistant: LiveAssistant | None = None,
    *,
    limits: Limits | None = None,
    token: str = "",
    record: Path | None = None,
    tasks: Mapping[str, Task] = TASKS,
    origins: Sequence[str] = (),
    host: str = "127.0.0.1",
) -> Iterator[Served]:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    limits = limits or Limits()
    assistant = assistant or tiny_assistant()
    access = Access(host=host, port=port, token=token, origins=origins)
    app = create_app(assistant, tasks, access, limits, record=record)
    server = make_server(app, limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    served = Served(port, app.state.sessions, server, assistant)
    try:
        yield served
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
        assert not thread.is_alive()


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for what the server does without telling."""
    until_s = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def stall_at(monkeypatch: pytest.MonkeyPatch, *texts: str) -> dict[str, threading.Event]:
    """Let connections stall while they send these answers, until the event of each is set."""
    goes_on = {text: threading.Event() for text in texts}
    send_json = WebSocket.send_json

    async def stall(self: WebSocket, data: dict[str, str]) -> None:
        if data.get("text") in goes_on:
            await asyncio.to_thread(goes_on[data["text"]].wait, 10)
        await send_json(self, data)

    monkeypatch.setattr(WebSocket, "send_json", stall)
    return goes_on


class Client:
    """A client that has said hello, if ``hello`` says anything."""

    def __init__(
        self, served: Served, hello: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        self._open = ExitStack()
        self.socket: ClientConnection = self._open.enter_context(
            connect(f"ws://127.0.0.1:{served.port}/live", compression=None, proxy=None, **options)
        )
        self.welcome: dict[str, Any] = {}
        if hello is not None:
            self.send({"type": "hello", **hello})
            self.welcome = self.receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._open.close()

    def send(self, message: object) -> None:
        self.socket.send(json.dumps(message))

    def frame(self, number: int, picture: bytes | None = None) -> None:
        data = jpeg(number) if picture is None else picture
        self.socket.send(struct.pack(">I", number) + data)

    def receive(self, timeout: float = 10) -> dict[str, Any]:
        return dict(json.loads(self.socket.recv(timeout=timeout)))

    def watch(self, *numbers: int) -> list[dict[str, Any]]:
        """Show frames, each after the answer to the one before."""
        answers = []
        for number in numbers:
            self.frame(number)
            answers.append(self.receive())
        return answers

    def close_code(self) -> int:
        """Wait until the server closes the connection."""
        with suppress(ConnectionClosed):
            for _ in self.socket:
                pass
        assert self.socket.close_code is not None
        return self.socket.close_code
