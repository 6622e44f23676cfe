"""Simulated peers of a site's devices, run by hand: `edgewright sim up SITE`, and faults made while they run.

`sim up` listens on a Unix socket beside the site's journal; `sim fault` sends it one line and prints the answer.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

from devices.broker.runtime import state_folder
from devices.drivers.registry import settings_of
from devices.errors import EdgeError, UnavailableError, UsageError
from devices.simulation.peer import Faults, Peer, RealTimeWorld
from devices.simulation.socket_peer import PeerServer, ask
from devices.site.site import Site

PEERS = {
    "command": "devices.drivers.command.peer:CommandPeer",
    "gcode": "devices.drivers.gcode.peer:GcodePeer",
    "gpio": "devices.drivers.gpio.peer:GpioPeer",
    "http": "devices.drivers.http.peer:HttpPeer",
    "i2c": "devices.drivers.i2c.peer:I2cPeer",
    "modbus": "devices.drivers.modbus.peer:ModbusPeer",
    "mqtt": "devices.drivers.mqtt.peer:MqttPeer",
    "sql": "devices.drivers.sql.peer:SqlPeer",
}
FAULTS = {
    "stick": "a device answers and does not move",
    "silence": "a device does not answer",
    "freeze": "a device shows what it shows now",
    "garble": "every answer is noise",
    "mute": "no answer comes at all, though devices do as they are told",
    "delay": "every answer comes SECONDS late",
    "drop": "the peers drop all connections and listen no more",
    "clear": "all is well again",
}


class Stage:
    """A site's peers and the world behind them. Close it when done."""

    def __init__(self, site: Site, *, speed: float = 1.0) -> None:
        """Start a peer for each driver.

        Args:
            site: with drivers.
            speed: simulated seconds in a real one.

        Raises:
            UsageError: the site has no drivers, or one that has no simulated peer.
            UnavailableError: a port is taken.
        """
        if not site.drivers:
            raise UsageError(f"the site {site.name} has no drivers", hint="its devices are simulated without any peer")
        self.site, self.world = site, RealTimeWorld(site, speed=speed)
        self.peers: list[Peer] = [make_peer(site, name, self.world) for name in site.drivers]
        self._start()

    def _start(self) -> None:
        for peer in self.peers:
            try:
                peer.start()
            except OSError as error:
                self.close()
                raise UnavailableError(f"cannot listen at {peer.where}: {error.strerror or error}") from error

    def close(self) -> None:
        """Stop every peer."""
        for peer in self.peers:
            peer.stop()

    def fault(self, words: list[str]) -> str:
        """Make a fault, or clear all; return what is so now.

        Args:
            words: one of FAULTS, and its device or seconds.

        Raises:
            UsageError: no such fault or device.
        """
        name, *rest = words or [""]
        if name in {"stick", "silence", "freeze"}:
            return self._device_fault(name, rest[0] if rest else "")
        if name == "delay":
            self.world.faults.delay_s = _seconds(rest)
            return f"every answer comes {self.world.faults.delay_s:g} s late"
        if name == "garble":
            self.world.faults.garbled = True
        elif name == "mute":
            self.world.faults.mute = True
        elif name == "drop":
            self.close()
        elif name == "clear":
            self.world.faults = Faults()
            with self.world.now() as world:
                world.stuck.clear()
                world.broken.clear()
            self.close()
            self._start()
        else:
            raise UsageError(f"there is no fault {name!r}", hint=f"faults: {', '.join(FAULTS)}")
        return FAULTS[name]

    def _device_fault(self, name: str, device: str) -> str:
        if device not in self.site.devices:
            raise UsageError(f"the site has no device {device!r}", hint=f"devices: {', '.join(self.site.devices)}")
        if name == "freeze":
            self.world.freeze(device)
        else:
            with self.world.now() as world:
                (world.stuck if name == "stick" else world.broken).add(device)
        return f"{device}: {FAULTS[name].removeprefix('a device ')}"


def make_peer(site: Site, driver: str, world: RealTimeWorld) -> Peer:
    """Return the peer for one of a site's drivers, not listening yet. Raises UsageError if there is none."""
    kind = str(site.drivers[driver]["type"])
    if kind not in PEERS:
        raise UsageError(
            f"there is no simulated peer for a driver of the type {kind!r}", hint=f"peers: {', '.join(PEERS)}"
        )
    try:
        peer: Peer = resolve_name(PEERS[kind])(*settings_of(site, driver), world)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the peer of {kind} needs the package {error.name}", hint=f"pip install {error.name}"
        ) from error
    return peer


def _seconds(words: list[str]) -> float:
    try:
        seconds = float(words[0])
    except (IndexError, ValueError) as error:
        raise UsageError("delay wants a number of seconds") from error
    if not 0 <= seconds <= 3600:
        raise UsageError(f"{seconds} is outside 0 to 3600 seconds")
    return seconds


def socket_path(site: Site) -> Path:
    """Return where `sim up` of this site listens for faults."""
    return state_folder(site) / "sim.sock"


def serve(stage: Stage, tell: Callable[[str], None], closing: threading.Event) -> None:
    """Take faults from `sim fault` until `closing` is set.

    Raises:
        UnavailableError: another `sim up` of this site runs.
    """

    def answer(words: list[str]) -> dict[str, str]:
        try:
            told = stage.fault(words)
        except EdgeError as error:
            return {"problem": str(error), "hint": error.hint}
        tell(told)
        return {"told": told}

    server = PeerServer(socket_path(stage.site), answer)
    try:
        server.start()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise UnavailableError(f"{server.path}: {error.strerror or error}") from error
        raise UnavailableError(f"the site {stage.site.name} is already up", hint="stop that one first") from error
    try:
        closing.wait()
    finally:
        server.stop()


def send_fault(site: Site, words: list[str]) -> str:
    """Send a fault to a running `sim up`; return its answer.

    Raises:
        UnavailableError: none runs for this site.
        UsageError: it knows no such fault or device.
    """
    try:
        answer = ask(socket_path(site), words)
    except OSError as error:
        raise UnavailableError(
            f"no simulated {site.name} is up", hint=f"start it: edgewright sim up {site.name}"
        ) from error
    if "problem" in answer:
        raise UsageError(answer["problem"], hint=answer["hint"])
    return str(answer["told"])


def run_peers(site: Site, speed: float, tell: Callable[[str], None]) -> None:
    """Run a site's peers until interrupted."""
    stage = Stage(site, speed=speed)
    try:
        for peer in stage.peers:
            tell(f"{site.name} is up at {peer.where}; Ctrl-C stops it")
        serve(stage, tell, threading.Event())
    finally:
        stage.close()
