"""Programs that drivers run: without a shell, within a time, with an output of bounded size."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from devices.driver import DeviceUnavailable

MAX_OUTPUT_BYTES = 1 << 20
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


def run_program(
    device: str,
    words: Sequence[str],
    timeout_s: float,
    given: bytes = b"",
    environment: Mapping[str, str] = ENVIRONMENT,
) -> bytes:
    """Run a program, once, and return its output; what it started ends with it.

    Args:
        device: for messages.
        words: the program's path, and its words.
        timeout_s: how long it may run.
        given: its standard input.
        environment: all that it sees of it.

    Raises:
        DeviceUnavailable: it could not be started, took too long, wrote too much, or ended with an error.
    """
    deadline_s = time.monotonic() + timeout_s
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=True,  # so that killpg reaches what the program started, too
        )
    except OSError as error:
        raise DeviceUnavailable(f"{device}: cannot run {words[0]}: {error.strerror}") from error
    with process:
        try:
            output = _exchanged(process, given, deadline_s)
            code = process.wait(max(0.0, deadline_s - time.monotonic()))
        except (subprocess.TimeoutExpired, OverflowError) as error:
            problem = "wrote too much" if isinstance(error, OverflowError) else "did not end"
            raise DeviceUnavailable(f"{device}: {words[0]} {problem} within {timeout_s:g} s") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if code:
        raise DeviceUnavailable(f"{device}: {words[0]} ended with {code}")
    return output


def _exchanged(process: subprocess.Popen[bytes], given: bytes, deadline_s: float) -> bytes:
    """Write the input and return all output. Raises TimeoutExpired, and OverflowError over MAX_OUTPUT_BYTES."""
    assert process.stdout is not None
    output, left = b"", memoryview(given)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
        while True:
            ready = selector.select(max(0.0, deadline_s - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired(process.args, 0)
            for key, _ in ready:
                if key.fileobj is process.stdout:
                    part = os.read(process.stdout.fileno(), 1 << 16)
                    if not part:
                        return output
                    output += part
                    if len(output) > MAX_OUTPUT_BYTES:
                        raise OverflowError
                elif process.stdin is not None:
                    with contextlib.suppress(BrokenPipeError, BlockingIOError):  # it need not read what it is given
                        left = left[os.write(process.stdin.fileno(), left) :]
                        if left:
                            continue
                    selector.unregister(process.stdin)
                    with contextlib.suppress(BrokenPipeError):
                        process.stdin.close()
