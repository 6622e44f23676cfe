"""The engine's own process: llama.cpp behind one socket, so that its crash, its memory and its mistakes are its own.

Started by process.py with the number of an open socket. A message is one line of JSON:

    {"do": "open", "model": PATH, "adapter": PATH or null, "cache": FOLDER or null, "key": TEXT,
     "context_tokens", "gpu_layers", "sequences": number, "memory_bytes": number or null, "tuning": {...}}
    {"do": "prime", "prefix": TEXT}
    {"do": "prefill_idle", "prompt": TEXT}    evaluate how the next prompt begins, until SIGUSR1
    {"do": "generate", "parts": BOOLEAN,
     "requests": [{"prompt": TEXT, "grammar": {"lark", "known"} or null, "limits": {...}}]}
    {"do": "state"}    what was evaluated last, for the cache
    {"do": "words"}    the table of tokens, for the cache
    {"do": "memory"}

Each is answered by {"ok": VALUE} or by {"error": CLASS, "message", "hint"}; `state` and `words` by {"bytes": COUNT} and
that many bytes. With `parts`, {"part": TEXT} comes before that for what there is of the reply so far. Never pickle: a
hostile model may have taken this process over, and its parent is not confined.
SIGUSR1 ends a reply or a prefill while idle at the next step of the model. The process ends with its socket. Once the
model is loaded it can open no socket and write no file (sandbox.py): what is to be cached it gives to its parent, and
reads again at the next start.
"""

from __future__ import annotations

import ctypes
import json
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from devices.errors import EdgeError

LARGEST_BYTES = 1 << 32  # of a message: whatever a process that was taken over says, its parent takes no more
_PR_SET_PDEATHSIG = 1


def send(pipe: socket.socket, message: dict[str, Any]) -> None:
    """Send one message; bytes under "ok" come after it. Raises OSError if the other side is gone."""
    data = message.get("ok")
    if isinstance(data, bytes):
        message = {"bytes": len(data)}
    else:
        data = b""
    pipe.sendall(json.dumps(message, ensure_ascii=False, allow_nan=False).encode() + b"\n" + data)


def receive(lines: IO[bytes]) -> dict[str, Any]:
    """Return the next message; bytes that came after it are under "ok".

    Raises:
        EOFError: the other side is gone.
        TimeoutError: as the socket is set.
    """
    line = lines.readline(LARGEST_BYTES)
    if not line.endswith(b"\n"):
        raise EOFError
    message: dict[str, Any] = json.loads(line)
    if "bytes" in message:
        message["ok"] = lines.read(min(message["bytes"], LARGEST_BYTES))
        if len(message["ok"]) < message["bytes"]:
            raise EOFError
    return message


class _Worker:
    def __init__(self, pipe: socket.socket) -> None:
        self.engine: Any = None
        self._pipe = pipe

    def answer(self, message: dict[str, Any]) -> Any:
        handlers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "open": self._open,
            "prime": lambda asked: self.engine.prime(asked["prefix"]),
            "prefill_idle": lambda asked: self.engine.prefill_idle(asked["prompt"]),
            "generate": self._generate,
            "state": lambda _: self.engine.state(),
            "words": lambda _: self.engine.token_table.pack(),
            "memory": lambda _: self.engine.memory_bytes(),
        }
        return handlers[message["do"]](message)

    def _open(self, message: dict[str, Any]) -> None:
        if message["memory_bytes"]:
            resource.setrlimit(resource.RLIMIT_AS, (message["memory_bytes"], message["memory_bytes"]))
        from edge_agent.engine.autotune import Tuning
        from edge_agent.engine.cache_file import STATE_FILE, WORDS_FILE, read_cache
        from edge_agent.engine.llama_cpp_engine import LlamaEngine
        from edge_agent.engine.llama_cpp_vocabulary import TokenTable
        from edge_agent.engine.sandbox import enter_sandbox

        folder = Path(message["cache"]) if message["cache"] else None
        words = read_cache(folder / WORDS_FILE, message["key"]) if folder else None
        self.engine = LlamaEngine(
            Path(message["model"]),
            adapter=Path(message["adapter"]) if message["adapter"] else None,
            context_tokens=message["context_tokens"],
            gpu_layers=message["gpu_layers"],
            tuning=Tuning(**message["tuning"]),
            sequences=message["sequences"],
            token_table=TokenTable.unpack(words) if words else None,
        )
        state = read_cache(folder / STATE_FILE, message["key"]) if folder else None
        if state:
            self.engine.restore(state)
        if not message["gpu_layers"]:  # a GPU's driver opens files while it works
            enter_sandbox()
        signal.signal(signal.SIGUSR1, lambda *_: self.engine.cancel())

    def _generate(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        from edge_agent.engine.engine import Limits, Request
        from edge_agent.grammar.grammar import Grammar, Known

        requests = []
        for one in message["requests"]:
            plain = one["grammar"]
            grammar = Grammar(plain["lark"], Known.of(plain["known"])) if plain else None
            limits = Limits(one["limits"]["reply_tokens"], one["limits"]["timeout_s"])
            requests.append(Request(one["prompt"], grammar, limits))
        on_text = (lambda text: send(self._pipe, {"part": text})) if message["parts"] else None
        return [asdict(completion) for completion in self.engine.generate(requests, on_text)]


def end_with_parent() -> None:
    """Have this process end when its parent does, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    """Answer messages until the other side is gone."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's; the parent decides
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe = socket.socket(fileno=int(sys.argv[1]))
    worker = _Worker(pipe)
    lines = pipe.makefile("rb")
    import edge_agent.engine.llama_cpp_engine  # noqa: F401  # now, while whoever started this reads the site and checks the bundle

    while True:
        try:
            message = receive(lines)
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
