"""Stand-ins for a site's devices, run by hand: `edgewright sim up SITE`, and faults made while they run.

`sim up` listens on a Unix socket beside the site's journal; `sim fault` sends it one line and prints the answer.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

from devices.drivers.peer import Faults, LiveWorld, Peer
from devices.drivers.registry import settings_of
from devices.errors import EdgeError, UnavailableError, UsageError
from devices.place import state_folder
from devices.site import Site

PEERS = {
    "command": "devices.drivers.command_peer:CommandPeer",
    "gcode": "devices.drivers.gcode_peer:GcodePeer",
    "gpio": "devices.drivers.gpio_peer:GpioPeer",
    "http": "devices.drivers.http_peer:HttpPeer",
    "i2c": "devices.drivers.i2c_peer:I2cPeer",
    "modbus": "devices.drivers.modbus_peer:ModbusPeer",
    "mqtt": "devices.drivers.mqtt_peer:MqttPeer",
    "sql": "devices.drivers.sql_peer:SqlPeer",
}
IN_PROCESS = {"gpio", "i2c"}  # pins and a bus have no network between the driver's process and another
FAULTS = {
    "stick": "a device answers and does not move",
    "silence": "a device does not answer",
    "freeze": "a device shows what it shows now",
    "garble": "every answer is noise",
    "delay": "every answer comes SECONDS late",
    "drop": "the peers drop all connections and listen no more",
    "clear": "all is well again",
}


class Stage:
    """A site's peers and the world behind them. Close it when done."""

    def __init__(self, site: Site, *, speed: float = 1.0) -> None:
        """Start a peer for each driver that another process can reach.

        Args:
            site: with drivers.
            speed: simulated seconds in a real one.

        Raises:
            UsageError: the site has no drivers, or one that nothing stands in for.
            UnavailableError: a port is taken.
        """
        if not site.drivers:
            raise UsageError(f"the site {site.name} has no drivers", hint="its devices are simulated without any peer")
        self.site, self.world = site, LiveWorld(site, speed=speed)
        networked = [name for name, plain in site.drivers.items() if plain["type"] not in IN_PROCESS]
        self.peers: list[Peer] = [make_peer(site, name, self.world) for name in networked]
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


def make_peer(site: Site, driver: str, world: LiveWorld) -> Peer:
    """Return the peer for one of a site's drivers, not listening yet. Raises UsageError if nothing stands in for it."""
    kind = str(site.drivers[driver]["type"])
    if kind not in PEERS:
        raise UsageError(f"nothing stands in for a driver of the type {kind!r}", hint=f"peers: {', '.join(PEERS)}")
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
    path = socket_path(stage.site)
    if path.exists() and _answers(path):
        raise UnavailableError(f"the site {stage.site.name} is already up", hint="stop that one first")
    path.unlink(missing_ok=True)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            words = self.rfile.readline(1000).decode("utf-8", errors="replace").split()
            if not words:
                return  # somebody only looked whether we are up
            try:
                answer = f"ok {stage.fault(words)}"
                tell(answer.removeprefix("ok "))
            except EdgeError as error:
                answer = f"no {error} {error.hint}".strip()
            self.wfile.write(f"{answer}\n".encode())

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            closing.wait()
        finally:
            server.shutdown()
            path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def send_fault(site: Site, words: list[str]) -> str:
    """Send a fault to a running `sim up`; return its answer.

    Raises:
        UnavailableError: none runs for this site.
        UsageError: it knows no such fault or device.
    """
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(10)
        try:
            link.connect(str(socket_path(site)))
            link.sendall((" ".join(words) + "\n").encode())
            answer = link.makefile().readline().strip()
        except OSError as error:
            raise UnavailableError(
                f"no simulated {site.name} is up", hint=f"start it: edgewright sim up {site.name}"
            ) from error
    if not answer.startswith("ok "):
        raise UsageError(answer.removeprefix("no "))
    return answer.removeprefix("ok ")


def run_stage(site: Site, speed: float, tell: Callable[[str], None]) -> None:
    """Run a site's peers until interrupted."""
    stage = Stage(site, speed=speed)
    try:
        for peer in stage.peers:
            tell(f"{site.name} is up at {peer.where}; Ctrl-C stops it")
        for name, plain in site.drivers.items():
            if plain["type"] in IN_PROCESS:
                tell(f"{name}: nothing stands in for {plain['type']} across processes")
        serve(stage, tell, threading.Event())
    finally:
        stage.close()
