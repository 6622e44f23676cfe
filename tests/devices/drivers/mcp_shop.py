"""An MCP server of two tools, run as a program by test_mcp.py."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("shop")
NOTES = Path(sys.argv[1])


@server.tool()
def add_note(text: str) -> dict[str, int]:
    """Keeps a note."""
    if text == "die":
        os._exit(1)
    if text == "hang":
        time.sleep(60)
    with NOTES.open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")
    return {"notes": len(NOTES.read_text(encoding="utf-8").splitlines())}


@server.tool()
def find_order(number: int) -> str:
    """Shows an order."""
    if number < 0:
        raise ToolError("no such order")
    return f"order {number} is {os.environ.get('SHOP_STATE', 'open')}"


if __name__ == "__main__":
    if len(sys.argv) > 2:
        server.run("streamable-http", port=int(sys.argv[2]))
    else:
        server.run()
