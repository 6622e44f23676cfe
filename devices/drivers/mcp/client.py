"""One MCP server, spoken to through the `mcp` SDK from ordinary threads. The one file that knows the SDK.

The SDK is loaded when a server is first needed: it takes two seconds, and comes with the extra `mcp`.

Source: Model Context Protocol 2026-07-28, "Tools"; the `mcpServers` file is the one of desktop clients.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devices.driver import DeviceUnavailable
from devices.errors import UsageError

START_S = 30.0  # a server may have to load a lot
CLOSE_S = 10.0  # the SDK ends a program that does not end by itself within a few seconds


@dataclass(frozen=True)
class Server:
    """How a server is reached: started as a program, or at the URL of its streamable HTTP."""

    name: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    url: str = ""


def servers_in(path: Path) -> dict[str, Server]:
    """Return the servers of an `mcpServers` file by name. Raises UsageError if it is none."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        found = plain["mcpServers"]
        return {name: _server_of(str(name), entry) for name, entry in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} names no MCP servers: {type(error).__name__} {error}",
            hint='it has {"mcpServers": {"NAME": {"command": …, "args": […]} or {"url": …}}}',
        ) from error


def _server_of(name: str, plain: Mapping[str, Any]) -> Server:
    if "url" in plain:
        return Server(name, url=str(plain["url"]))
    command = (str(plain["command"]), *map(str, plain.get("args") or ()))
    return Server(name, command, {str(key): str(value) for key, value in (plain.get("env") or {}).items()})


class McpClient:
    """A connection that is made when it is first used, and anew after a server has died. Safe to use from threads."""

    def __init__(self, server: Server, timeout_s: float) -> None:
        self._server, self._timeout_s = server, timeout_s
        self._lock = threading.Lock()
        self._connection: _Connection | None = None

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        """Return what a tool answers, structured where the server says so.

        Raises:
            DeviceUnavailable: the tool answered with an error or not at all, and nobody knows what was done.
        """
        result = self._run("call_tool", tool, dict(arguments))
        texts = [block.text for block in result.content if getattr(block, "type", "") == "text"]
        if result.is_error:
            raise DeviceUnavailable(" ".join(texts) or "it answered with an error")
        if result.structured_content is not None:
            return result.structured_content
        try:
            return json.loads("\n".join(texts))
        except ValueError:
            return "\n".join(texts)

    def tools(self) -> list[dict[str, Any]]:
        """Return the server's tools, each with name, description and the JSON Schema of its arguments."""
        listed = self._run("list_tools").tools
        return [{"name": one.name, "description": one.description or "", "parameters": dict(one.input_schema)}
                for one in listed]  # fmt: skip

    def close(self) -> None:
        """End the connection, and the program with it."""
        with self._lock:
            if self._connection:
                self._connection.close()
            self._connection = None

    def _run(self, method: str, *given: Any) -> Any:
        with self._lock:  # one call at a time, as most servers expect
            if self._connection is None or not self._connection.is_open:
                self._connection = _Connection(self._server)
            try:
                return self._connection.run(method, given, self._timeout_s)
            except DeviceUnavailable:
                self._connection.close()
                self._connection = None
                raise


class _Connection:
    """A client of the SDK in a thread with its own event loop."""

    def __init__(self, server: Server) -> None:
        self._name = server.name
        self._ready: Future[Any] = Future()
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._work, args=(server,), name=f"mcp {server.name}", daemon=True)
        self._thread.start()
        try:
            self._client = self._ready.result(START_S)
        except FutureTimeoutError as error:
            self.close()
            raise DeviceUnavailable(f"MCP server {self._name}: did not start within {START_S:g} s") from error
        except DeviceUnavailable:
            raise
        except Exception as error:  # the SDK has errors of many families
            raise DeviceUnavailable(f"MCP server {self._name}: {_why(error)}") from error

    @property
    def is_open(self) -> bool:
        return self._thread.is_alive()

    def run(self, method: str, given: tuple[Any, ...], timeout_s: float) -> Any:
        future = asyncio.run_coroutine_threadsafe(getattr(self._client, method)(*given), self._loop)
        try:
            return future.result(timeout_s)
        except FutureTimeoutError as error:
            future.cancel()
            raise DeviceUnavailable(f"MCP server {self._name}: no answer within {timeout_s:g} s") from error
        except Exception as error:
            raise DeviceUnavailable(f"MCP server {self._name}: {_why(error)}") from error

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(CLOSE_S)

    def _work(self, server: Server) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve(server))
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            if not self._ready.done():
                self._ready.set_exception(error)
        finally:
            self._loop.close()

    async def _serve(self, server: Server) -> None:
        try:
            from mcp import Client, StdioServerParameters, stdio_client
        except ImportError as error:
            raise DeviceUnavailable("MCP servers need the package mcp", hint="pip install edgewright[mcp]") from error
        command, *rest = server.command or ("",)
        program = StdioServerParameters(command=command, args=rest, env=dict(server.environment))
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:  # what a server logs is its own matter
            async with Client(server.url or stdio_client(program, nowhere)) as client:
                self._ready.set_result(client)
                await self._closing.wait()


def _why(error: BaseException) -> str:
    """Return the innermost reason: the SDK wraps errors into groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(str(error).split()) or type(error).__name__
