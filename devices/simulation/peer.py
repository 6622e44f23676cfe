"""Simulated peers: one world in real time behind real protocols, and faults made on purpose.

A peer is a server of the protocol itself, so that the driver that is tried is the one that ships.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from devices.simulation.world import World
from devices.site.schema import Value
from devices.site.site import Site

SERVER_S = 10.0  # in which a server comes up, and stops


@dataclass
class Faults:
    """What is wrong on purpose. Stuck and silent devices are the world's (`stuck`, `broken`).

    Attributes:
        frozen: devices whose readings stay as they were, though they move.
        garbled: whether answers are noise.
        mute: whether no answer comes at all, though devices do as they are told.
        delay_s: how long every answer takes longer.
    """

    frozen: dict[str, dict[str, Value]] = field(default_factory=dict)
    garbled: bool = False
    mute: bool = False
    delay_s: float = 0.0


class RealTimeWorld:
    """A world whose time passes by itself, for peers in several threads."""

    def __init__(self, site: Site, *, speed: float = 1.0) -> None:
        """Args: speed: simulated seconds in a real one."""
        self.faults = Faults()
        self._world = World(site)
        self.speed, self._seen_s = speed, time.monotonic()
        self._lock = threading.RLock()

    @contextmanager
    def now(self) -> Iterator[World]:
        """Give the world as it is now, for this thread alone."""
        with self._lock:
            now_s = time.monotonic()
            self._world.advance((now_s - self._seen_s) * self.speed)
            self._seen_s = now_s
            yield self._world

    def read(self, device: str) -> dict[str, Value] | None:
        """Return what the device shows; None if it does not answer."""
        with self.now() as world:
            if device in world.broken:
                return None
            return dict(self.faults.frozen.get(device) or world.values_of(device))

    def write(self, device: str, values: dict[str, Value]) -> bool:
        """Set properties unless the device is stuck; return whether it answered."""
        with self.now() as world:
            if device not in world.stuck | world.broken:
                world.set(device, values)
            return device not in world.broken

    def wait_while_mute(self, is_up: Callable[[], bool]) -> None:
        """Return when answers come again, or nothing is up any more: for peers that answer each in a thread."""
        while self.faults.mute and is_up():
            time.sleep(0.01)

    def freeze(self, device: str) -> None:
        """Keep showing what the device shows now."""
        with self.now() as world:
            self.faults.frozen[device] = world.values_of(device)


def require_free(host: str, port: int) -> None:
    """Raise OSError, with its reason, if a port is taken: the servers themselves say only that they could not."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


class ServerThread:
    """An asyncio server in a thread of its own, up until `stop`. Raises OSError if it does not come up.

    Args:
        where: where it listens, as people write it.
        serving: the server is up inside of it.
    """

    def __init__(self, where: str, serving: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        self._serving, self._up, self._closing = serving, threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),), name=where, daemon=True)
        self._thread.start()
        if not self._up.wait(SERVER_S):
            raise OSError(f"{where} does not come up")

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self._serving():
            self._up.set()
            await self._closing.wait()

    def stop(self) -> None:
        """Stop the server."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(SERVER_S)


class Peer(Protocol):
    """A server of one protocol for the devices of one driver of a site."""

    @property
    def where(self) -> str:
        """Where it listens, as people write it."""
        ...

    def start(self) -> None:
        """Listen; after a stop, at the same place again."""
        ...

    def stop(self) -> None:
        """Drop every connection and stop listening."""
        ...
