"""The HTTP door: OpenAI's API, the box's own API and its page, operations, and MCP, by starlette and uvicorn."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from devices.errors import UnavailableError, UsageError
from edge_agent.serving.configuration import HttpDoor
from edge_agent.serving.http.access import MOST_CONNECTIONS, Access, own_names, read_token
from edge_agent.serving.http.agent_routes import AgentRoutes
from edge_agent.serving.http.openai_routes import OpenAiRoutes
from edge_agent.serving.http.operations import operations_routes
from edge_agent.serving.hub import Hub

PAGE_FOLDER = Path(__file__).parent / "page"
MOST_HEADER_BYTES = 32 * 1024
KEEP_ALIVE_S = 15
LAST_WORDS_S = 5  # that requests have to end when the server does


class HttpServer:
    """The door. See Door."""

    name = "http"

    def __init__(self, configuration: HttpDoor) -> None:
        self._configuration = configuration

    async def serve(self, hub: Hub, opened: Callable[[str], None]) -> None:
        """Serve until cancelled.

        Raises:
            UsageError: the token file or the certificate does not fit.
            UnavailableError: the port is taken, or the address is not this machine's.
        """
        wanted = self._configuration
        token = read_token(Path(wanted.token_file)) if wanted.token_file else ""
        if wanted.tls_cert:
            require_certificate(wanted)
        listener = _listen(wanted.host, wanted.port)
        with listener:
            closing = asyncio.Event()
            app = http_app(hub, wanted, token, closing)
            server = _Server(
                uvicorn.Config(
                    app,
                    log_config=None,
                    access_log=False,
                    lifespan="on",
                    h11_max_incomplete_event_size=MOST_HEADER_BYTES,
                    limit_concurrency=MOST_CONNECTIONS,
                    timeout_keep_alive=KEEP_ALIVE_S,
                    timeout_graceful_shutdown=LAST_WORDS_S,
                    ssl_certfile=wanted.tls_cert or None,
                    ssl_keyfile=wanted.tls_key or None,
                    server_header=False,
                    proxy_headers=False,
                )
            )
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            server.on_started = lambda: opened(f"{'https' if wanted.tls_cert else 'http'}://{shown}:{port}/")
            serving = asyncio.create_task(server.serve([listener]))
            try:
                await asyncio.shield(serving)
            finally:
                closing.set()
                server.should_exit = True
                with suppress(asyncio.CancelledError):
                    await asyncio.wait_for(serving, LAST_WORDS_S + 2)


class _Server(uvicorn.Server):
    """uvicorn's, without its signal handlers: the process is not its own."""

    on_started: Callable[[], None]

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to serve.py."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self.on_started()


def http_app(hub: Hub, configuration: HttpDoor, token: str, closing: asyncio.Event) -> ASGIApp:
    """Return the application that the door serves, with its access control in front; news end when it is closing."""
    routes: list[BaseRoute] = [
        Route("/", _page),
        Mount("/page", StaticFiles(directory=PAGE_FOLDER)),
        *OpenAiRoutes(hub).routes,
        *AgentRoutes(hub, closing).routes,
        *operations_routes(hub),
    ]
    lifespans = []
    if configuration.mcp:
        from edge_agent.serving.mcp.mcp_door import streamable_http_app

        mcp, mcp_lifespan = streamable_http_app(hub)
        routes.append(Route("/mcp", endpoint=mcp))
        lifespans.append(mcp_lifespan)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for one in lifespans:
                await stack.enter_async_context(one)
            yield

    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _explain})
    names, is_tls = own_names(configuration.allowed_hosts), bool(configuration.tls_cert)
    return Access(app, token, names, configuration.requests_a_minute, is_tls)


async def _page(_: Request) -> Response:
    return FileResponse(PAGE_FOLDER / "index.html", headers={"cache-control": "no-cache"})


async def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    plain = {"message": f"{request.method} {request.url.path}: {error.detail}", "type": "invalid_request_error"}
    return JSONResponse({"error": plain | {"param": None, "code": None, "hint": ""}}, error.status_code, error.headers)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY: an answer else waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UnavailableError(
                f"port {port} of {host} is taken", hint="stop what uses it, or --set http.port=NUMBER"
            ) from error
        raise UnavailableError(f"cannot listen at {host}:{port}: {error.strerror}") from error
    return listener


def require_certificate(wanted: HttpDoor) -> None:
    """Raise UsageError unless certificate and key can be read and belong together."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(wanted.tls_cert, wanted.tls_key)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"the certificate {wanted.tls_cert} and the key {wanted.tls_key} do not fit: {reason}",
            hint="tls_cert is a PEM file with the whole chain, tls_key the key that belongs to it",
        ) from error
