"""One WebSocket: from hello to the end, with a task that reads and one that writes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from proassist_lit.demo.access import Access
from proassist_lit.demo.messages import (
    Bye,
    Hello,
    Refusal,
    Say,
    SetThresholds,
    read_frame,
    read_text,
)
from proassist_lit.demo.sessions import Sessions
from proassist_lit.demo.viewer import Viewer
from proassist_lit.demo.worker import Worker

_LAST_WORDS_S = 2.0
"""How long a client that is turned out may take to hear why."""


class Connection:
    """A client of the demo, accepted but yet unknown.

    Args:
        websocket: accepted.
        sessions: all there are.
        worker: runs the model.
        access: who is let in.
    """

    def __init__(
        self, websocket: WebSocket, sessions: Sessions, worker: Worker, access: Access
    ) -> None:
        self._websocket, self._sessions, self._worker = websocket, sessions, worker
        self._access = access
        self._something = asyncio.Event()
        self._is_replaced = False
        self._session_id = ""

    async def run(self) -> None:
        """Serve the client until it goes or is refused."""
        try:
            await self._serve(await self._greet())
        except Refusal as refusal:
            with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self._websocket.send_json(refusal.to_json())
                    await self._websocket.close(refusal.close_code or 1000)
        except WebSocketDisconnect:
            pass
        finally:
            self._sessions.lose(self._session_id, self)

    def replace(self) -> None:
        """Another connection has gone on with the session; this one is turned out."""
        self._is_replaced = True
        self._something.set()

    async def _greet(self) -> Viewer:
        limits = self._sessions.limits
        try:
            async with asyncio.timeout(limits.hello_s):
                first = await self._receive()
        except TimeoutError:
            raise Refusal("hello", "say hello first") from None
        hello = read_text(first, limits) if isinstance(first, str) else None
        if not isinstance(hello, Hello):
            raise Refusal("malformed", "say hello first")
        if not self._access.knows(hello.token):
            raise Refusal("token", "this is not the token")
        viewer = self._sessions.resume(hello.session, self) if hello.session else None
        resumed = viewer is not None
        if viewer is None:
            self._session_id, viewer = self._sessions.begin(hello.task, self)
        else:
            self._session_id = hello.session
        loop = asyncio.get_running_loop()
        viewer.wake = lambda: _wake(loop, self._something)
        await self._websocket.send_json(
            {"type": "welcome", "session": self._session_id, "resumed": resumed, **viewer.about()}
        )
        self._something.set()  # a session may have ended while nobody had it
        return viewer

    async def _serve(self, viewer: Viewer) -> None:
        tasks = {
            asyncio.create_task(self._read(viewer)),
            asyncio.create_task(self._write(viewer)),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Refusal):
                raise end
        for task in done:
            task.result()

    async def _read(self, viewer: Viewer) -> None:
        limits = self._sessions.limits
        while True:
            data = await self._receive()
            try:
                if isinstance(data, bytes):
                    viewer.offer(read_frame(data, limits))
                    self._worker.watch(viewer)
                    continue
                match read_text(data, limits):
                    case Say(words):
                        viewer.say(words)
                    case SetThresholds(speak, dst):
                        viewer.set_thresholds(speak, dst)
                    case Bye():
                        self._sessions.end(self._session_id)
                    case Hello():
                        raise Refusal("malformed", "hello was said already")
            except Refusal as refusal:
                if refusal.close_code is not None:
                    raise
                viewer.tell(refusal.to_json())

    async def _write(self, viewer: Viewer) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            # Asked before each answer: while one is sent, the next may become another's.
            while not self._is_replaced and (answer := viewer.take()) is not None:
                await self._websocket.send_json(answer)
            if self._is_replaced:
                raise Refusal("replaced", "another connection has gone on with this session")
            if viewer.ended is not None:
                raise viewer.ended

    async def _receive(self) -> str | bytes:
        message: dict[str, Any] = dict(await self._websocket.receive())
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1005)
        if message.get("bytes") is not None:
            return bytes(message["bytes"])
        return str(message["text"])


def _wake(loop: asyncio.AbstractEventLoop, something: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop is gone, and with it the client
        loop.call_soon_threadsafe(something.set)
