"""Who may talk to the server: where it listens, tokens, and the pages that may connect."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from proassist_lit.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach ``host``."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who is let in.

    Attributes:
        host: address that the server listens at.
        port: likewise.
        token: secret that every client must know; empty for none.
        origins: further pages that may connect, such as https://demo.example.org.

    Raises:
        ConfigError: others can reach the server, or a proxy before it, and there is no token.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    origins: Collection[str] = ()

    def __post_init__(self) -> None:
        public = {
            f"--host {self.host}": self.host,
            **{f"--origin {origin}": urlsplit(origin).hostname or "" for origin in self.origins},
        }
        for option, host in public.items():
            if not self.token and not is_loopback(host):
                raise ConfigError(
                    f"{option}: others can reach this address, so a token is needed; put one into "
                    "an environment variable and name that by --token-env."
                )
        if self.token and len(self.token) < 16:
            raise ConfigError(
                "--token-env: the token has fewer than 16 characters; make one by python -c "
                "'import secrets; print(secrets.token_urlsafe(24))'."
            )

    def knows(self, token: str) -> bool:
        """Whether ``token`` is right; takes as long for any wrong one."""
        if not self.token:
            return True
        return hmac.compare_digest(token.encode(), self.token.encode())

    def allows(self, origin: str | None, host: str) -> bool:
        """Whether a page may connect.

        Args:
            origin: where the page comes from, as the browser says; None without a browser, which
                could say anything.
            host: the address that it asked for. A page that made its own name lead to our
                loopback address asks by that name: there, only names that are surely ours count.
        """
        if not self.knows_host(host):
            return False
        return (
            origin is None
            or origin in self.origins
            or origin in (f"http://{host}", f"https://{host}")
        )

    def knows_host(self, host: str) -> bool:
        """Whether ``host``, as a client asked for it, is a name of ours."""
        if not is_loopback(self.host):
            return True  # a name of this machine is not known here; the token decides
        proxied = {origin.partition("://")[2] for origin in self.origins}
        names = ("127.0.0.1", "localhost", "[::1]", self.host)
        ours = {f"{name}:{self.port}" for name in names} | set(names if self.port == 80 else ())
        return host in proxied | ours
