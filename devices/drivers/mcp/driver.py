"""Tools of an MCP server, started as a program or reached over streamable HTTP; only those that a toolset lists.

Under `executors` of a toolset: `files: {type: mcp, file: mcp.json, server: files}` with the `mcpServers` file that
desktop clients have, or `{type: mcp, command: [npx, server], environment: [TOKEN]}`, or `{type: mcp, url: http://…/mcp}`.
Under a tool `at: {tool: read_file}`, or nothing if the server calls it by the same name.

Does not guard against: what a server does beside its tools. It is the owner's choice, and runs with this user's rights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from devices.driver import Binding, DeviceUnavailable, DriverType, Needs, peer_of, secret_from
from devices.drivers.mcp.client import McpClient, Server, servers_in
from devices.drivers.only_calls import OnlyCalls, only_functions
from devices.errors import UsageError, did_you_mean
from devices.yaml_file import Strict


class McpSettings(Strict):
    """Which server: one of an `mcpServers` file, a program, or a URL; `environment` lists variables that it gets."""

    type: Literal["mcp"]
    file: str = ""
    server: str = ""
    command: tuple[str, ...] = Field(default=(), strict=False)
    url: str = Field(default="", pattern=r"^(https?://\S+)?$")
    environment: tuple[str, ...] = Field(default=(), strict=False)
    timeout_s: float = Field(default=30.0, gt=0)

    @model_validator(mode="after")
    def _require_one_server(self) -> McpSettings:
        if sum(map(bool, (self.file, self.command, self.url))) != 1:
            raise ValueError("needs one of file (with server), command or url")
        return self

    def reached(self, device: str) -> Server:
        """Return how the server is reached. Raises UsageError: the file has no such server."""
        if not self.file:
            environment = {name: secret_from(device, name) for name in self.environment}
            return Server(self.server or device, self.command, environment, self.url)
        return self._listed()

    def _listed(self) -> Server:
        servers = servers_in(Path(self.file))
        name = self.server or next(iter(servers), "")
        if name not in servers:
            raise UsageError(f"{self.file} has no server {name!r}", hint=did_you_mean(name, servers))
        return servers[name]

    def needs(self) -> Needs:
        """Return what the server needs. Raises UsageError: the file has no such server, or a URL is none."""
        server = self._listed() if self.file else Server(self.server, self.command, url=self.url)
        peers = (peer_of(server.url),) if server.url else ()
        return Needs({"mcp": "mcp"}, reads=(self.file,) if self.file else (), runs=server.command[:1], peers=peers)


class McpTool(Strict):
    """Which of the server's tools; "" is the one of the same name."""

    tool: str = ""


class McpDriver(OnlyCalls):
    """One server, which is started when its first tool is called."""

    def __init__(self, settings: McpSettings, bindings: Mapping[str, Binding], clock: Callable[[], float]) -> None:
        del clock
        self._settings, self._bindings = settings, bindings
        self._client: McpClient | None = None

    def call(self, device: str, action: str, arguments: Mapping[str, Any], key: str) -> Any:
        """Call a tool. The protocol has no place for a key, and none for what an error has left done."""
        del key
        if self._client is None:
            try:
                self._client = McpClient(self._settings.reached(device), self._settings.timeout_s)
            except UsageError as error:
                raise DeviceUnavailable(f"{device}: {error}", hint=error.hint) from error
        return self._client.call(self._bindings[device].calls[action].tool or device, arguments)

    def close(self) -> None:
        """End the server, if it was started."""
        if self._client:
            self._client.close()


DRIVER = DriverType(
    settings=McpSettings,
    address=McpTool,
    open=McpDriver,
    call_address=McpTool,
    call_problem_with=only_functions,
    needs=McpSettings.needs,
)
