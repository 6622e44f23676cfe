"""An MCP server with two tools of the travel office, over stdio; mcp.json names it.

python finetune/examples/travel_server.py
"""

from __future__ import annotations

from typing import Any, Literal

from mcp.server.mcpserver import MCPServer

try:
    from finetune.examples import travel
except ImportError:  # started as a program, its folder is where modules are looked for
    import travel  # type: ignore[import-not-found, no-redef]

server = MCPServer("travel")


@server.tool()
def get_weather(city: str, day: Literal["today", "tomorrow", "weekend"]) -> dict[str, Any]:
    """Get the weather forecast for a city."""
    return travel.get_weather(city, day)


@server.tool()
def find_trains(origin: str, destination: str, after: str = "00:00") -> dict[str, Any]:
    """Find trains between two cities."""
    return travel.find_trains(origin, destination, after)


if __name__ == "__main__":
    server.run()
