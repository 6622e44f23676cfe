"""Lines of standard input for asyncio; waiting for them can be cancelled, and a process ends while one waits."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator


async def read_lines(most_bytes: int) -> AsyncIterator[str]:
    """Yield the lines until the input ends; those that are longer are left out."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=most_bytes)

    def read() -> None:
        try:
            while chunk := os.read(0, 1 << 16):
                loop.call_soon_threadsafe(reader.feed_data, chunk)
            loop.call_soon_threadsafe(reader.feed_eof)
        except (OSError, RuntimeError):  # nobody waits any more
            return

    threading.Thread(target=read, name="standard input", daemon=True).start()
    while True:
        try:
            line = await reader.readline()
        except ValueError:
            continue
        if not line:
            return
        yield line.decode("utf-8", "replace")
