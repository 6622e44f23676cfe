"""A board that runs Grbl, as far as the driver talks to it: at the far end of a serial line, with a simulated machine.

Moves take their time. The board's input D is a safety door: a move holds when it opens, and closing it is not enough
to go on, as with Grbl's.
"""

from __future__ import annotations

import os
import re
import selectors
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from devices.driver import Binding
from devices.drivers.gcode.driver import AXES, COOLANT, GcodePlace, GcodeSettings
from devices.drivers.serial_line import SerialLine
from devices.simulation.peer import RealTimeWorld
from devices.site.schema import Value

TICK_S = 0.005
BANNER = "Grbl 1.1h ['$' for help]"
NOISE = b"\xff\xfe\x80\n"


class GcodePeer:
    """The board behind one `gcode` driver of a site."""

    def __init__(self, settings: GcodeSettings, bindings: Mapping[str, Binding], world: RealTimeWorld) -> None:
        self._settings, self._bindings, self._world = settings, bindings, world
        self._line: SerialLine | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._state, self._goal, self._speed_mm_s = "Idle", dict[str, float](), 0.0
        self._partial = b""

    @property
    def where(self) -> str:
        """The line."""
        return f"serial://{self._settings.serial}"

    def start(self) -> None:
        """Make the line and answer on it. Raises OSError if there is one already."""
        self._line = SerialLine(Path(self._settings.serial))
        self._closing.clear()
        self._thread = threading.Thread(target=self._run, args=(self._line.far,), name=self.where, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take the line away."""
        if self._line is None or self._thread is None:
            return
        self._closing.set()
        self._thread.join()
        self._line.close()
        self._line = self._thread = None

    def _run(self, far: str) -> None:
        handle = os.open(far, os.O_RDWR | os.O_NOCTTY)
        seen_s = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(handle, selectors.EVENT_READ)
            while not self._closing.is_set():
                is_asked = bool(selector.select(TICK_S))
                now_s = time.monotonic()
                self._move(now_s - seen_s)
                seen_s = now_s
                for byte in os.read(handle, 4096) if is_asked else b"":
                    if (answer := self._take(bytes([byte]))) and self._answers():
                        time.sleep(self._world.faults.delay_s)
                        os.write(handle, NOISE if self._world.faults.garbled else answer.encode())
        os.close(handle)

    def _answers(self) -> bool:
        is_there = all(self._world.read(device) is not None for device in self._bindings)
        return is_there and not self._world.faults.mute

    def _take(self, byte: bytes) -> str:
        """Take one byte; return what the board says to it."""
        if byte == b"?":
            return self._status()
        if byte == b"!":
            self._state = "Hold:0" if self._state == "Run" else self._state
        elif byte == b"\x18":
            self._state, self._goal = "Idle", {}
            return f"\r\n{BANNER}\r\n"
        elif byte == b"\n":
            line, self._partial = self._partial.decode("ascii", errors="replace").strip(), b""
            return self._execute(line)
        else:
            self._partial += byte
        return ""

    def _status(self) -> str:
        shown = {str(place.axis): value for _, place, value in self._places() if place.axis}
        position = ",".join(f"{float(shown.get(axis, 0.0)):.3f}" for axis in AXES)
        inputs = "".join(sorted(p.input for _, p, value in self._places() if p.input and bool(value) != p.is_inverted))
        return f"<{self._state}|MPos:{position}|FS:0,0{f'|Pn:{inputs}' if inputs else ''}>\r\n"

    def _execute(self, line: str) -> str:
        if line == "$G":
            on = {place.spindle or place.coolant: bool(value) for _, place, value in self._places() if place.is_mode}
            spindle = "M3" if any(value for key, value in on.items() if isinstance(key, int)) else "M5"
            coolant = [COOLANT[str(key)] for key, value in on.items() if key in COOLANT and value] or ["M9"]
            return f"[GC:G1 G54 G17 G21 G90 G94 {spindle} {' '.join(coolant)} T0 F0 S0]\r\nok\r\n"
        words = line.split()
        if "G1" in words:
            self._goal |= {word[0].lower(): float(word[1:]) for word in words if word[0] in "XYZ"}
            self._speed_mm_s = next(float(word[1:]) for word in words if word[0] == "F") / 60
            self._state = "Run"
            return "ok\r\n"
        if words and re.fullmatch("M[35789]", words[0]):
            self._switch(words[0])
            return "ok\r\n"
        return "ok\r\n" if not words else "error:20\r\n"

    def _switch(self, word: str) -> None:
        for (device, name), place, _ in self._places():
            if place.spindle and word in {"M3", "M5"}:
                self._world.write(device, {name: word == "M3"})
            if place.coolant and word in {COOLANT[place.coolant], "M9"}:
                self._world.write(device, {name: word != "M9"})

    def _move(self, seconds: float) -> None:
        """Bring the machine nearer to its goal, along a straight line."""
        if self._state == "Run" and self._is_door_open():
            self._state = "Door:0"
        self._show_state()
        if self._state != "Run":
            return
        axes = {place.axis: (where, float(value)) for where, place, value in self._places() if place.axis in self._goal}
        gaps = {axis: self._goal[str(axis)] - value for axis, (_, value) in axes.items()}
        distance = sum(gap * gap for gap in gaps.values()) ** 0.5
        share = min(1.0, self._speed_mm_s * self._world.speed * seconds / distance) if distance else 1.0
        for axis, ((device, name), value) in axes.items():
            self._world.write(device, {name: value + share * gaps[axis]})
        if share == 1.0:
            self._state, self._goal = "Idle", {}

    def _is_door_open(self) -> bool:
        return any(place.input == "D" and bool(value) != place.is_inverted for _, place, value in self._places())

    def _show_state(self) -> None:
        with self._world.now() as world:
            for (device, name), place, _ in self._places():
                if place.state:
                    world.state[device][name] = self._state.split(":")[0].lower()
                if place.moving:
                    world.state[device][name] = self._state == "Run"

    def _places(self) -> list[tuple[tuple[str, str], GcodePlace, Value]]:
        """Return every property bound here, with its address and its value in the world."""
        with self._world.now() as world:
            return [
                ((device, name), place, self._world.faults.frozen.get(device, world.state[device])[name])
                for device, binding in self._bindings.items()
                for name, place in binding.at.items()
            ]
