"""The engine's own process: llama.cpp behind one socket, so that its crash, its memory and its mistakes are its own.

Started by process.py with the number of an open socket. A message is four bytes of length, big-endian, and that
many bytes of JSON:

    {"do": "open", "model": PATH, "adapter": PATH or null, "kept": FOLDER or null, "key": TEXT,
     "context_tokens", "gpu_layers": number, "memory_bytes": number or null, "tuning": {...}}
    {"do": "prime", "prefix": TEXT}
    {"do": "prefill_idle", "prompt": TEXT}    evaluate how the next prompt begins, until SIGUSR1
    {"do": "generate", "requests": [{"prompt": TEXT, "grammar": {"lark", "facts"} or null, "limits": {...}}]}
    {"do": "state"}    what was evaluated last, as base64, to be kept
    {"do": "words"}    the table of tokens, as base64, to be kept
    {"do": "memory"}

Each is answered by {"ok": VALUE} or by {"error": CLASS, "message", "hint"}. SIGUSR1 ends a reply or a look-ahead at
the next step of the model. The process ends with its socket. Once the model is loaded it can open no socket and write
no file (sandbox.py): what is to be kept it gives to its parent, and reads again at the next start.
"""

from __future__ import annotations

import base64
import ctypes
import json
import resource
import signal
import socket
import struct
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from devices.errors import EdgeError

LENGTH = struct.Struct(">I")
_PR_SET_PDEATHSIG = 1


def send(pipe: socket.socket, message: Any) -> None:
    """Send one message. Raises OSError if the other side is gone."""
    data = json.dumps(message, ensure_ascii=False, allow_nan=False).encode()
    pipe.sendall(LENGTH.pack(len(data)) + data)


def receive(pipe: socket.socket) -> Any:
    """Return the next message. Raises EOFError if the other side is gone, TimeoutError as the socket is set."""
    (size_bytes,) = LENGTH.unpack(_exactly(pipe, LENGTH.size))
    return json.loads(_exactly(pipe, size_bytes))


def _exactly(pipe: socket.socket, size_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < size_bytes:
        part = pipe.recv(min(size_bytes - len(data), 1 << 20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


class _Worker:
    def __init__(self) -> None:
        self.engine: Any = None

    def answer(self, message: dict[str, Any]) -> Any:
        handlers = {"open": self._open, "prime": self._prime, "prefill_idle": self._prefill_idle,
                    "generate": self._generate, "state": self._state, "words": self._words,
                    "memory": self._memory}  # fmt: skip
        return handlers[message["do"]](message)

    def _open(self, message: dict[str, Any]) -> None:
        if message["memory_bytes"]:
            resource.setrlimit(resource.RLIMIT_AS, (message["memory_bytes"], message["memory_bytes"]))
        from edge_agent.engine.autotune import Tuning
        from edge_agent.engine.cache_file import STATE_FILE, WORDS_FILE, kept
        from edge_agent.engine.llama_cpp_engine import LlamaEngine
        from edge_agent.engine.llama_cpp_vocabulary import TokenTable
        from edge_agent.engine.sandbox import enter_sandbox

        folder = Path(message["kept"]) if message["kept"] else None
        words = kept(folder / WORDS_FILE, message["key"]) if folder else None
        self.engine = LlamaEngine(
            Path(message["model"]),
            adapter=Path(message["adapter"]) if message["adapter"] else None,
            context_tokens=message["context_tokens"],
            gpu_layers=message["gpu_layers"],
            tuning=Tuning(**message["tuning"]),
            token_table=TokenTable.unpack(words) if words else None,
        )
        state = kept(folder / STATE_FILE, message["key"]) if folder else None
        if state:
            self.engine.restore(state)
        if not message["gpu_layers"]:  # a GPU's driver opens files while it works
            enter_sandbox()
        signal.signal(signal.SIGUSR1, lambda *_: self.engine.cancel())

    def _prime(self, message: dict[str, Any]) -> bool:
        was_known: bool = self.engine.prime(message["prefix"])
        return was_known

    def _prefill_idle(self, message: dict[str, Any]) -> None:
        self.engine.prefill_idle(message["prompt"])

    def _state(self, message: dict[str, Any]) -> str:
        del message
        return base64.b64encode(self.engine.state()).decode()

    def _words(self, message: dict[str, Any]) -> str:
        del message
        return base64.b64encode(self.engine.token_table.pack()).decode()

    def _generate(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        from edge_agent.engine.engine import Limits, Request
        from edge_agent.grammar.grammar import Grammar

        requests = []
        for one in message["requests"]:
            grammar = one["grammar"]
            facts = tuple(map(tuple, grammar["facts"])) if grammar else ()
            limits = Limits(one["limits"]["reply_tokens"], one["limits"]["timeout_s"])
            requests.append(Request(one["prompt"], Grammar(grammar["lark"], facts) if grammar else None, limits))
        return [asdict(completion) for completion in self.engine.generate(requests)]

    def _memory(self, message: dict[str, Any]) -> int:
        del message
        used: int = self.engine.memory_bytes()
        return used


def main() -> int:
    """Answer messages until the other side is gone."""
    if sys.platform == "linux":  # end with the parent, however that ends
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's; the parent decides
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe, worker = socket.socket(fileno=int(sys.argv[1])), _Worker()
    import edge_agent.engine.llama_cpp_engine  # noqa: F401  # now, while whoever started this reads the site and checks the bundle

    while True:
        try:
            message = receive(pipe)
        except (EOFError, OSError):
            return 0
        try:
            answer = {"ok": worker.answer(message)}
        except EdgeError as error:
            answer = {"error": type(error).__name__, "message": str(error), "hint": error.hint}
        except MemoryError:
            answer = {"error": "UnavailableError", "message": "the engine is out of memory", "hint": ""}
        send(pipe, answer)


if __name__ == "__main__":
    sys.exit(main())
