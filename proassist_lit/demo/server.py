"""The demo's server: one page, and a WebSocket for each client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import JSONResponse

from proassist_lit.demo.access import Access
from proassist_lit.demo.connection import Connection
from proassist_lit.demo.limits import Limits
from proassist_lit.demo.sessions import Sessions
from proassist_lit.demo.worker import Worker
from proassist_lit.live.assistant import LiveAssistant
from proassist_lit.live.task import Task

PAGE = {
    "": ("demo", "index.html", "text/html"),
    "demo.css": ("demo", "demo.css", "text/css"),
    "dom.js": ("report", "dom.js", "text/javascript"),
    "sources.js": ("demo", "sources.js", "text/javascript"),
    "link.js": ("demo", "link.js", "text/javascript"),
    "demo.js": ("demo", "demo.js", "text/javascript"),
}
"""What there is to be loaded: package, file and type by path. No other file can be asked for."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; media-src 'self' blob: mediastream:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

NO_NAME_OF_OURS = (
    "This address is not known to be the server's. If it is, through a tunnel or a proxy, start it "
    "with --origin http://HOST:PORT as the browser says it."
)
"""What a browser shows that asked by another name: a page of others may have led it here."""

_SWEEP_S = 1.0
_SPARE_CONNECTIONS = 8
"""Connections beside those of sessions: clients that come back, or are about to be refused."""


def create_app(
    assistant: LiveAssistant,
    tasks: Mapping[str, Task],
    access: Access,
    limits: Limits,
    *,
    record: Path | None = None,
) -> FastAPI:
    """The application.

    Args:
        assistant: who watches.
        tasks: what may be watched, by name; the first one is chosen unless another is.
        access: who is let in.
        limits: what they may cost.
        record: folder below which sessions are kept; None to write nothing.
    """
    worker = Worker()
    sessions = Sessions(assistant, tasks, limits, worker, record=record)
    page = {path: _load(*place) for path, place in PAGE.items()}
    num_connections = 0

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with worker:
            sweeping = asyncio.create_task(_sweep(sessions))
            yield
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping
            sessions.end_all()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.sessions = sessions

    @app.middleware("http")
    async def guard(
        request: Request, respond: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if access.knows_host(request.headers.get("host", "")):
            response = await respond(request)
        else:
            response = JSONResponse({"reason": "origin", "message": NO_NAME_OF_OURS}, 403)
        response.headers.update(HEADERS)
        return response

    @app.get("/about")
    async def about(request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not access.knows(token if scheme.lower() == "bearer" else ""):
            return JSONResponse({"reason": "token"}, 401)
        return JSONResponse(
            {
                "tasks": {name: len(task.steps) for name, task in tasks.items()},
                "fps": assistant.fps,
                "has_dst": assistant.model.dst_head is not None,
                "max_minutes": limits.max_minutes,
                "max_frame_bytes": limits.max_frame_bytes,
                "max_side": limits.max_side,
                "max_words": limits.max_words,
                "keep_s": limits.keep_s,
            }
        )

    @app.get("/{path:path}")
    async def part_of_page(path: str) -> Response:
        if path not in page:
            return JSONResponse({"reason": "unknown"}, 404)
        content, kind = page[path]
        return Response(content, media_type=kind)

    @app.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        nonlocal num_connections
        headers = websocket.headers
        refused = ""
        if not access.allows(headers.get("origin"), headers.get("host", "")):
            refused = "origin"
        elif num_connections >= limits.max_sessions + _SPARE_CONNECTIONS:
            refused = "full"
        if refused:
            code = 403 if refused == "origin" else 503
            await websocket.send_denial_response(JSONResponse({"reason": refused}, code))
            return
        num_connections += 1
        try:
            await websocket.accept()
            await Connection(websocket, sessions, worker, access).run()
        finally:
            num_connections -= 1

    return app


def make_server(app: FastAPI, limits: Limits) -> uvicorn.Server:
    """The server of an application; what is twice too large, or more, is not even read."""
    # uvicorn reports every handshake that was refused as a fault of the application.
    logging.getLogger("uvicorn.error").addFilter(_is_no_refusal)
    return uvicorn.Server(
        uvicorn.Config(
            app, ws="websockets-sansio",
            ws_max_size=2 * max(limits.max_frame_bytes, 4 * limits.max_message_chars),
            ws_per_message_deflate=False, log_level="warning", server_header=False,
            timeout_graceful_shutdown=2,
        )
    )  # fmt: skip


def _is_no_refusal(record: logging.LogRecord) -> bool:
    return "without completing handshake" not in record.getMessage()


async def _sweep(sessions: Sessions) -> None:
    while True:
        await asyncio.sleep(_SWEEP_S)
        sessions.sweep()


def _load(package: str, name: str, kind: str) -> tuple[str, str]:
    folder = files(f"proassist_lit.{package}")
    place = folder / "page" / name if package == "demo" else folder / name
    return place.read_text(encoding="utf-8"), kind
