"""An MCP server with two tools of the travel office, over stdio; mcp.json names it.

python finetune/examples/travel_server.py
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any, Literal

from mcp.server.mcpserver import MCPServer

server = MCPServer("travel")
office = runpy.run_path(str(Path(__file__).with_name("travel.py")))


@server.tool()
def get_weather(city: str, day: Literal["today", "tomorrow", "weekend"]) -> dict[str, Any]:
    """Get the weather forecast for a city."""
    return dict(office["get_weather"](city, day))


@server.tool()
def find_trains(origin: str, destination: str, after: str = "00:00") -> dict[str, Any]:
    """Find trains between two cities."""
    return dict(office["find_trains"](origin, destination, after))


if __name__ == "__main__":
    server.run()
