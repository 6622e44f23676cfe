"""Programs that show and set a simulated world: scripts that ask this process through a Unix socket."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from devices.driver import Binding
from devices.drivers.command.driver import VALUE, CommandPlace, CommandSettings
from devices.drivers.json_values import put
from devices.simulation.peer import RealTimeWorld
from devices.simulation.socket_peer import PeerServer

NOISE = bytes(range(255, 239, -1)).decode("latin-1")
PROGRAM = """#!{python} -IS
import json, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({path!r})
link.sendall(json.dumps(sys.argv).encode() + b"\\n")
code, shown = json.loads(link.makefile("rb").readline())["answer"]
sys.stdout.buffer.write(shown.encode("latin-1"))
sys.exit(code)
"""


class CommandPeer:
    """The programs behind one `command` driver of a site; those that are there already are left as they are."""

    def __init__(self, settings: CommandSettings, bindings: Mapping[str, Binding], world: RealTimeWorld) -> None:
        self._world, self._bindings = world, bindings
        self._programs = [Path(program) for program in settings.allow]
        self._made: list[Path] = []
        self._server: PeerServer | None = None

    @property
    def where(self) -> str:
        """Which programs."""
        return ", ".join(map(str, self._programs))

    def start(self) -> None:
        """Make the programs. Raises OSError where that is not allowed."""
        self._folder = tempfile.TemporaryDirectory(prefix="edgewright-")
        self._server = PeerServer(Path(self._folder.name) / "socket", self._answer_late)
        self._server.start()
        for program in self._programs:
            if not program.exists():
                program.write_text(PROGRAM.format(python=sys.executable, path=str(self._server.path)), encoding="utf-8")
                program.chmod(0o755)
                self._made.append(program)

    def stop(self) -> None:
        """Take the programs away that were made."""
        if self._server is None:
            return
        for program in self._made:
            program.unlink(missing_ok=True)
        self._made.clear()
        self._server.stop()
        self._folder.cleanup()
        self._server = None

    def _answer_late(self, words: list[str]) -> tuple[int, str]:
        told = self.answer(words)
        self._world.wait_while_mute(lambda: self._server is not None)
        return told

    def answer(self, words: list[str]) -> tuple[int, str]:
        """Return exit code and output, in Latin-1, of a program called with these words, and do what they ask."""
        time.sleep(self._world.faults.delay_s)
        if self._world.faults.garbled:
            return 0, NOISE
        shown: Any = {}
        is_known = False
        for device, binding in self._bindings.items():
            for name, place in binding.at.items():
                if list(place.read) == words:
                    values = self._world.read(device)
                elif (text := _value_in(place.write, words)) is not None:
                    value = place.to_value(_as_shown(place, text), binding.device.properties[name])
                    values = {} if self._world.write(device, {name: value}) else None
                else:
                    continue
                is_known = True
                if values is None:
                    return 1, ""
                if name in values:
                    raw = place.to_raw(values[name])
                    if place.key:
                        put(shown, place.key, raw)
                    else:
                        shown = raw
        text = shown if isinstance(shown, str) else json.dumps(shown)
        return (0, text.encode().decode("latin-1")) if is_known else (2, "")


def _value_in(written: Sequence[str], words: Sequence[str]) -> str | None:
    """Return the word in the place of the value if the others are as written."""
    if not written or len(written) != len(words):
        return None
    pairs = list(zip(written, words, strict=True))
    return next(word for mark, word in pairs if mark == VALUE) if all(m in (VALUE, w) for m, w in pairs) else None


def _as_shown(place: CommandPlace, text: str) -> Any:
    try:
        raw = json.loads(text)
    except ValueError:
        raw = text
    if not place.key:
        return raw
    shown: dict[str, Any] = {}
    put(shown, place.key, raw)
    return shown
