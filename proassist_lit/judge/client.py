"""Asks a server that speaks OpenAI's protocol, patiently, but not for ever."""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from proassist_lit.errors import ConfigError, JudgeError
from proassist_lit.judge.answer import Answer, read_body
from proassist_lit.judge.request import Request

if TYPE_CHECKING:
    import openai

_ONE_REQUEST_ONLY = (400, 413, 422)
"""Refusals that may lie in this request alone: too long for the model, filtered."""

_PASSING = (408, 409, 425, 429)
"""Refusals that may pass, like every 5xx."""

_PUBLIC = "https://api.openai.com/v1"

_PORTS = {"http": 80, "https": 443}
"""Where a server listens whose address names no port."""

_NO_KEY = "none"
"""Sent where no key is given: the client insists on one, local servers look at none."""


@dataclass(frozen=True, kw_only=True)
class JudgeServer:
    """Where a judge is asked, and how long.

    Attributes:
        base_url: address up to and including ``/v1``; None is OpenAI's public server.
        key: the key; None to send none.
        timeout_s: longest time of one try, from the connection to the last byte.
        max_tries: how often a request is tried before it is given up.
        backoff_s: wait after the first failed try; doubles with each, less a random part.
        max_wait_s: longest wait. A server that asks for more is not waited for.
    """

    base_url: str | None
    key: str | None = None
    timeout_s: float = 120.0
    max_tries: int = 5
    backoff_s: float = 1.0
    max_wait_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s < math.inf:
            raise ConfigError(f"judge: timeout_s must be above 0 s, got {self.timeout_s}.")
        if self.max_tries < 1:
            raise ConfigError(f"judge: max_tries must be at least 1, got {self.max_tries}.")
        address(self.base_url)


class RequestError(Exception):
    """One request finally failed.

    Args:
        cause: what happened, without details, so that equal causes can be counted.
        detail: what the server said.
    """

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause = cause


class RejectedError(RequestError):
    """The server will not have this request, and perhaps this one alone: too long, filtered."""


class RefusedError(RequestError):
    """The server will refuse every other request, too: a bad key, no such model, no money."""


class _TryError(Exception):
    """One try failed; another one may do."""

    def __init__(self, cause: str, detail: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(cause)
        self.cause, self.detail, self.retry_after_s = cause, detail, retry_after_s


def address(base_url: str | None) -> str:
    """Host, port and path of a server, by which its answers are told from those of others.

    Args:
        base_url: address up to and including ``/v1``; None is OpenAI's public server.

    Raises:
        ConfigError: it is no address.
    """
    refusal = ConfigError(
        f"judge: {base_url!r} is no address of a server; give one like http://localhost:8000/v1."
    )
    try:
        parts = urlsplit(_PUBLIC if base_url is None else base_url)
        port = parts.port
    except ValueError as error:  # a port that is no number
        raise refusal from error
    usual = _PORTS.get(parts.scheme)
    if usual is None or not parts.hostname or port == 0:
        raise refusal
    return f"{parts.hostname}:{port or usual}{parts.path.rstrip('/')}"


class JudgeClient:
    """Asks one request at a time or many at once, within ``async with``.

    Args:
        server: where to ask.

    Raises:
        JudgeError: the package ``openai`` is missing.
    """

    def __init__(self, server: JudgeServer) -> None:
        try:
            import openai
        except ImportError as error:
            raise JudgeError(
                "judge: the package openai is not installed; pip install openai (the extra judge)."
            ) from error
        self._server = server
        self._limit = "max_tokens"
        self._client = openai.AsyncOpenAI(
            base_url=server.base_url or _PUBLIC,
            api_key=server.key or _NO_KEY,
            timeout=server.timeout_s,
            max_retries=0,  # `ask` does that
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.close()

    async def ask(self, request: Request, stop: asyncio.Event) -> Answer:
        """The answer to ``request``.

        Failures that may pass are tried again, after growing waits; a server that names a wait
        gets it. A try that was lost on the way may have been charged for: nobody can know.

        Args:
            request: what to ask.
            stop: once set, no further try is made.

        Raises:
            RequestError: no answer came.
            RejectedError: and the reason may lie in this request alone.
            RefusedError: and none will come to any other request.
        """
        tries = 0
        while True:
            tries += 1
            try:
                return await self._try(request)
            except _TryError as error:
                wait_s = self._wait_s(tries, error.retry_after_s)
                if tries == self._server.max_tries or wait_s is None or stop.is_set():
                    if error.retry_after_s is not None and wait_s is None:
                        error.detail += f" (asks to wait {error.retry_after_s:.0f} s)"
                    raise RequestError(error.cause, error.detail.strip()) from error
                failed = error
            try:
                await asyncio.wait_for(stop.wait(), wait_s)
            except TimeoutError:
                continue
            raise RequestError(failed.cause, failed.detail)

    def _wait_s(self, tries: int, retry_after_s: float | None) -> float | None:
        """Seconds until the next try; None if that is too long."""
        server = self._server
        # Less a random part, so that requests that failed together do not come back together.
        own_s = min(server.backoff_s * 2.0 ** min(tries - 1, 30), server.max_wait_s)
        own_s *= 0.5 + 0.5 * random.random()
        if retry_after_s is None:
            return own_s
        if retry_after_s > server.max_wait_s:
            return None
        return max(retry_after_s, 0.0) + own_s / 4

    async def _try(self, request: Request) -> Answer:
        import openai

        late = f"no answer within {self._server.timeout_s:g} s"
        limit = self._limit  # another request may change it before this one is answered
        try:
            # The client's own limit is for each byte: a server that drips would never reach it.
            async with asyncio.timeout(self._server.timeout_s):
                return await self._post(request, limit)
        except (TimeoutError, openai.APITimeoutError) as error:
            raise _TryError(late) from error
        except openai.APIConnectionError as error:
            reason = error.__cause__ or error
            detail = self._clean(str(reason) or type(reason).__name__)
            raise _TryError("the connection failed", detail) from error
        except openai.APIStatusError as error:
            if _wants_other_limit(error, limit):
                self._limit = "max_completion_tokens"
                return await self._try(request)
            raise self._failure(error) from error

    async def _post(self, request: Request, limit: str) -> Answer:
        messages: Any = [{"role": role, "content": text} for role, text in request.messages]
        response = await self._client.chat.completions.with_raw_response.create(
            model=request.settings.model,
            messages=messages,
            temperature=request.settings.temperature,
            extra_body={limit: request.settings.max_tokens},
        )
        body = response.text
        answer = read_body(body)
        if answer is None:
            raise _TryError("the body is not a whole chat completion", self._clean(body))
        return answer

    def _failure(self, error: openai.APIStatusError) -> Exception:
        status, detail = error.status_code, self._clean(_said(error))
        cause = f"HTTP {status}"
        if error.code == "insufficient_quota":
            return RefusedError(cause, detail)
        if status in _PASSING or status >= 500:
            return _TryError(cause, detail, _retry_after_s(error.response.headers))
        return (RejectedError if status in _ONE_REQUEST_ONLY else RefusedError)(cause, detail)

    def _clean(self, text: str) -> str:
        """``text`` on one line, not too long, and without the key."""
        if self._server.key:
            text = text.replace(self._server.key, "[key]")
        text = " ".join(text.split())
        return text if len(text) <= 200 else text[:197] + "..."


def _wants_other_limit(error: openai.APIStatusError, limit: str) -> bool:
    """Newer models of OpenAI refuse ``max_tokens``, older servers know nothing else."""
    return (
        error.status_code == 400
        and limit == "max_tokens"
        and "max_completion_tokens" in _said(error)
    )


def _said(error: openai.APIStatusError) -> str:
    """What the server gave as its reason."""
    body = error.body
    if isinstance(body, dict) and body.get("message"):
        return str(body["message"])
    return error.response.text or error.message


def _retry_after_s(headers: Any) -> float | None:
    """Seconds to wait, as the header ``Retry-After`` says them: a number, or a date."""
    said = headers.get("retry-after")
    if said is None:
        return None
    try:
        wait_s = float(said)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(said).timestamp() - time.time()
        except ValueError:
            return None
    return wait_s if math.isfinite(wait_s) else None
