"""An engine in a process of its own: killed, crashed, hung or out of memory, it is started again with its primed state.

The process has no devices, opens no sockets and writes no files; worker.py has the protocol. A request is the
whole prompt, results of what was done included, so that making it once more repeats no action.

Does not guard against: a request that kills the engine each time (the second time is an error).
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from devices.errors import EdgeError, RefusedError, UnavailableError, UsageError
from edge_agent.engine.autotune import USUAL, Tuning
from edge_agent.engine.cache_file import STATE_FILE, WORDS_FILE, write_cache
from edge_agent.engine.engine import Completion, ContextFull, Request
from edge_agent.engine.gguf_header import BadGguf
from edge_agent.engine.worker import receive, send

WORKER = "edge_agent.engine.worker"
GRACE_S = 10.0  # that an engine may take longer than it was told to, before it counts as hung
END_S = 2.0
CACHE_S = 5.0
_ERRORS: dict[str, type[EdgeError]] = {
    kind.__name__: kind for kind in (BadGguf, ContextFull, UsageError, RefusedError, UnavailableError)
}


@dataclass(frozen=True)
class EngineSettings:
    """What to load, and where.

    Attributes:
        model: a GGUF file.
        adapter: a LoRA adapter's to apply to it.
        cache: a folder for what makes the next start quick: the state after the prompt that was last, and the tokens'
            bytes; None caches nothing.
        identity: what the model's files are, such as their digests; what was cached under another is not used.
        context_tokens: room for prompt and reply, as LlamaEngine takes it.
        gpu_layers: on a GPU; -1 for all.
        tuning: how it computes.
        sequences: how many conversations keep what was evaluated of them.
        memory_bytes: what the process may use at most, files it maps included; None sets no limit.
    """

    model: Path
    adapter: Path | None = None
    cache: Path | None = None
    identity: str = ""
    context_tokens: int | None = None
    gpu_layers: int = 0
    tuning: Tuning = USUAL
    sequences: int = 1
    memory_bytes: int | None = None


_started_early: list[tuple[subprocess.Popen[bytes], socket.socket]] = []


@contextmanager
def started_early() -> Iterator[None]:
    """Start the next EngineProcess's process now: it imports what it needs while this one reads what it is to load."""
    _started_early.append(_launch())
    try:
        yield
    finally:
        while _started_early:  # nobody took it
            process, pipe = _started_early.pop()
            pipe.close()
            process.kill()
            process.wait()


def _launch() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Return a process that waits for its model, and the socket to speak to it through; it ends with the socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", WORKER, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
    return process, ours


class _Stopped(Exception):
    """The process is gone or does not answer; the text says which."""


class EngineProcess:
    """The engine protocol, answered by a process that can be replaced at any time. Not for two threads at once."""

    name = "llama.cpp"

    def __init__(self, settings: EngineSettings, log: Callable[[str], None] = lambda line: None) -> None:
        """Start loading the model; whoever calls first waits for it.

        Args:
            settings: what to load.
            log: takes a line when the process had to be started again.
        """
        self._settings, self._log = settings, log
        self._prefix: str | None = None
        self._on_text: Callable[[str], None] | None = None
        self._has_new_state = self._is_prefilling = False
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process's number; it changes when it is started again."""
        assert self._process
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there; one that died is started again for the next request."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """Cache what was evaluated last, for the next start, and end the process. Closing twice is fine."""
        if self._process is not None:
            if self._has_new_state and not self._is_busy:
                self._save({"state": STATE_FILE})
            self._close_pipe()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def prime(self, prefix: str) -> bool:
        """Evaluate a prefix, or take its cached state; return which of the two (True for the cached one).

        Raises:
            UsageError: the model cannot be loaded, or the prefix does not fit.
            UnavailableError: the process stopped twice.
        """
        self._prefix = prefix
        was_known = bool(self._twice({"do": "prime", "prefix": prefix}, None))
        if not was_known:
            self._save({"state": STATE_FILE, "words": WORDS_FILE})
        return was_known

    def prefill_idle(self, prompt: str) -> None:
        """Have the process evaluate how the next prompt begins, until it is asked for something; does not wait."""
        with suppress(OSError, _Stopped):  # the process is gone: whoever asks next finds out
            self._end_idle_prefill()
            send(self._pipe, {"do": "prefill_idle", "prompt": prompt})
            self._is_prefilling = True

    def generate(self, requests: Sequence[Request], on_text: Callable[[str], None] | None = None) -> list[Completion]:
        """Return one greedy completion for each request, in order.

        Args:
            requests: what to complete.
            on_text: of a single request, takes the text of its reply so far whenever there is more of it.

        Raises:
            ContextFull: a prompt and its reply do not fit the context.
            UnavailableError: the process stopped twice, or llama.cpp or the grammar failed.
        """
        times = [one.limits.timeout_s for one in requests]
        limit_s = sum(math.inf if one is None else one for one in times) + GRACE_S
        message = {
            "do": "generate",
            "requests": [_plain_request(one) for one in requests],
            "parts": on_text is not None,
        }
        self._has_new_state, self._on_text = True, on_text
        answered = self._twice(message, None if limit_s == math.inf else limit_s)
        return [
            Completion(**one | {key: tuple(one[key]) for key in ("token_ids", "log_probabilities")}) for one in answered
        ]

    def cancel(self) -> None:
        """End the reply that is being made, at the next step of the model; for another thread or a signal handler."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGUSR1)

    def memory_bytes(self) -> int:
        """Return the peak resident memory of the engine's process, in bytes."""
        return int(self._twice({"do": "memory"}, None))

    def _save(self, files: Mapping[str, str]) -> None:
        """Cache what the process can give; a disk that is full, or a process that is gone, costs time at a start."""
        if self._settings.cache is None:
            return
        with suppress(OSError, EdgeError, _Stopped):
            self._settings.cache.mkdir(parents=True, exist_ok=True)
            for what, name in files.items():
                write_cache(self._settings.cache / name, self._key, self._ask({"do": what}, CACHE_S))

    @property
    def _key(self) -> str:
        """What the cached files depend on."""
        one = self._settings
        return repr((one.identity, version("llama-cpp-python"), one.context_tokens, one.tuning))

    def _start(self) -> None:
        self._process, self._pipe = _started_early.pop() if _started_early else _launch()
        self._lines = self._pipe.makefile("rb")
        self._is_open, self._is_busy = False, True
        settings = {key: str(one) if isinstance(one, Path) else one for key, one in asdict(self._settings).items()}
        settings |= {"key": self._key}
        with suppress(OSError):  # it is gone already: whoever asks next finds out
            send(self._pipe, {"do": "open"} | settings)

    def _twice(self, message: dict[str, Any], limit_s: float | None) -> Any:
        """Ask, and if the process stops meanwhile, start it again, primed, and ask once more."""
        if self._process is None:
            raise UsageError("the engine is closed")
        try:
            return self._ask(message, limit_s)
        except _Stopped as stopped:
            reason = str(stopped)
        self._log(f"the engine {reason}; it is started again")
        self._kill()
        self._start()
        try:
            if self._prefix is not None and message["do"] != "prime":
                self._ask({"do": "prime", "prefix": self._prefix}, None)
            return self._ask(message, limit_s)
        except _Stopped as stopped:
            self._kill()
            self._start()
            raise UnavailableError(f"the engine {stopped}, twice", hint="is there enough memory?") from stopped

    def _ask(self, message: dict[str, Any], limit_s: float | None) -> Any:
        if not self._is_open:
            self._receive(None)
            self._is_open = True
        self._end_idle_prefill()
        self._is_busy = True  # until its answer is read
        try:
            send(self._pipe, message)
        except OSError as error:
            raise self._stopped() from error
        return self._receive(limit_s)

    def _end_idle_prefill(self) -> None:
        if self._is_prefilling:
            self._is_prefilling = False
            self.cancel()
            with suppress(EdgeError):  # the request that comes now fails of the same reason, or does not
                self._receive(GRACE_S)

    def _receive(self, limit_s: float | None) -> Any:
        self._pipe.settimeout(limit_s)
        try:
            while "part" in (answer := receive(self._lines)):
                if self._on_text:
                    self._on_text(answer["part"])
        except TimeoutError as error:
            raise _Stopped(f"hung (no answer for {limit_s:.0f} s)") from error
        except (EOFError, OSError, ValueError) as error:
            raise self._stopped() from error
        finally:
            self._pipe.settimeout(None)
        self._is_busy = False
        if "error" in answer:
            raise _ERRORS.get(answer["error"], UnavailableError)(answer["message"], hint=answer["hint"])
        return answer["ok"]

    def _stopped(self) -> _Stopped:
        assert self._process
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            return _Stopped("closed its socket")
        if code < 0:
            return _Stopped(f"was ended by {signal.Signals(-code).name}")
        return _Stopped(f"ended with exit code {code}")

    def _kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()
        self._close_pipe()

    def _close_pipe(self) -> None:
        self._lines.close()  # a socket stays open as long as a file of it
        self._pipe.close()


def _plain_request(request: Request) -> dict[str, Any]:
    grammar, limits = request.grammar, request.limits
    return {
        "prompt": request.prompt,
        "grammar": None if grammar is None else {"lark": grammar.lark, "known": vars(grammar.known)},
        "limits": {
            "reply_tokens": limits.reply_tokens,
            "timeout_s": None if limits.timeout_s == math.inf else limits.timeout_s,  # JSON has no infinity
        },
    }
