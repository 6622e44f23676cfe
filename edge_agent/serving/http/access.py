"""Who may come in over HTTP: Host and Origin, token, rate, and the size and time of what is sent. Pure ASGI.

A browser that was led here by another page is refused (cross-site requests by Origin, DNS rebinding by Host). Names are
only those of this machine and those that the configuration allows; an address needs no name service, and is fine.

Does not guard against: a client on this machine where no token is asked for; headers that come slowly (uvicorn waits
for them without a limit, and at most MOST_CONNECTIONS wait).
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
import secrets
import socket
import stat
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from devices.errors import UsageError

MOST_BODY_BYTES = 256 * 1024
BODY_S = 10.0  # for all of a body
MOST_CONNECTIONS = 256
MOST_CLIENTS = 1024  # whose rate is remembered
OPEN_PATHS = ("/", "/healthz", "/page/")  # without a token: nothing of the site stands in them
STOP = "/api/stop"  # has no limit: it must not be kept out by what went before
TOKEN_BYTES = 32
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def make_token(path: Path) -> None:
    """Write a new token into a file that only its owner can read. Raises UsageError if the file is there already."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(f"cannot make the token file {path}: {error.strerror}", hint="take another name") from error
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(TOKEN_BYTES) + "\n")


def read_token(path: Path) -> str:
    """Return the token in a file. Raises UsageError if there is none, or others can read it."""
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the token file {path}: {error}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"others can read the token file {path}", hint=f"chmod 600 {path}")
    if len(text) < TOKEN_BYTES or not text.isprintable() or " " in text:
        raise UsageError(
            f"{path} holds no token of {TOKEN_BYTES} characters or more", hint="edgewright serve --new-token FILE"
        )
    return text


@dataclass
class _Bucket:
    left: float
    seen_s: float


@dataclass
class Access:
    """Middleware before everything else.

    Args:
        app: what is guarded.
        token: asked for; "" asks for none.
        names: under which this server may be called, beside addresses.
        requests_a_minute: of one address.
        is_tls: whether its own address begins with https.
    """

    app: ASGIApp
    token: str
    names: frozenset[str]
    requests_a_minute: int
    is_tls: bool = False
    _buckets: OrderedDict[str, _Bucket] = field(default_factory=OrderedDict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer why not."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), scope["path"]

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    sent[name] = value
                sent.setdefault("cache-control", "no-store")
            await send(message)

        if refusal := self._refusal(scope, headers, path):
            await refusal(scope, receive, guarded_send)
            return
        await self.app(scope, _Body(receive).receive, guarded_send)

    def _refusal(self, scope: Scope, headers: Headers, path: str) -> JSONResponse | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return _error(421, f"this server is not called {_shown(host)}", "invalid_request_error", "host")
        origin = headers.get("origin")
        if origin is not None and origin != f"{'https' if self.is_tls else 'http'}://{host}":
            return _error(403, f"requests of other pages are refused ({_shown(origin)})", "permission_error", "origin")
        if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"} and path != "/":
            return _error(403, "requests of other pages are refused", "permission_error", "origin")
        if path != STOP and not self._has_room(scope["client"][0] if scope.get("client") else ""):
            return _error(429, "too many requests in a minute", "rate_limit_error", headers={"retry-after": "5"})
        is_open = path in OPEN_PATHS or path.startswith("/page/")
        if self.token and not is_open and not self._is_known(headers):
            return _error(401, "a token is needed", "authentication_error", headers={"www-authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > MOST_BODY_BYTES:
            return _error(413, f"a body has at most {MOST_BODY_BYTES} bytes", "invalid_request_error")
        return None

    def _is_ours(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        if not colon or host.endswith("]") or not port.isdigit():
            name = host
        name = name.strip("[]").casefold()
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True

    def _is_known(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        return kind.casefold() == "bearer" and hmac.compare_digest(given.strip().encode(), self.token.encode())

    def _has_room(self, client: str) -> bool:
        now_s, full = time.monotonic(), self.requests_a_minute
        bucket = self._buckets.setdefault(client, _Bucket(full, now_s))
        self._buckets.move_to_end(client)
        bucket.left = min(full, bucket.left + (now_s - bucket.seen_s) * full / 60)
        bucket.seen_s = now_s
        if bucket.left < 1:
            return False
        bucket.left -= 1
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return True


class _Body:
    """Receives a request's body, which may be neither large nor slow; what comes after it may take its time.

    Raises starlette's HTTPException in whoever reads it.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive, self._bytes, self._is_whole = receive, 0, False
        self._until_s = time.monotonic() + BODY_S

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._until_s - time.monotonic()))
        except TimeoutError as error:
            raise HTTPException(408, f"the body did not come within {BODY_S:.0f} s") from error
        self._bytes += len(message.get("body", b""))
        if self._bytes > MOST_BODY_BYTES:
            raise HTTPException(413, f"a body has at most {MOST_BODY_BYTES} bytes")
        self._is_whole = not message.get("more_body", False)
        return message


def own_names(allowed: tuple[str, ...]) -> frozenset[str]:
    """Return the names under which this machine may be called."""
    host = socket.gethostname().casefold()
    return frozenset({"localhost", host, f"{host.partition('.')[0]}.local", *(name.casefold() for name in allowed)})


def _shown(text: str) -> str:
    return repr(text[:80])


def _error(
    status: int, message: str, kind: str, code: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    plain: dict[str, Any] = {"message": message, "type": kind, "param": None, "code": code, "hint": ""}
    return JSONResponse({"error": plain}, status, headers)
