"""Take from this process what an engine has no use for: opening sockets, files for writing, other programs, signals.

A seccomp filter, which the kernel keeps until the process ends; no privileges are needed. Linux on x86-64 and 64-bit
ARM; elsewhere nothing is done, and `enter_sandbox` says so.

Does not guard against: reading files that this user may read, using sockets and files that are open already, or using
up the processor. Memory has its own limit (worker.py).

Source: seccomp(2); linux/filter.h, linux/seccomp.h, asm/unistd_64.h and asm-generic/unistd.h (6.1).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from dataclasses import dataclass

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000 | errno.EPERM
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_OTHER_ABI = 0x40000000  # x32's numbers begin here
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class _Calls:
    """A processor's audit number and its system calls.

    Attributes:
        audit: its number.
        denied: calls that fail.
        opening: those that open files, with where their flags are.
        tgkill: signals to threads, which a process needs for its own (abort).
    """

    audit: int
    denied: tuple[int, ...]
    opening: tuple[tuple[int, int], ...]
    tgkill: int


# socket, connect, bind, execve, execveat, ptrace, kill, tkill, rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_send_signal,
# creat, rename, renameat, renameat2, unlink, unlinkat, openat2
_CALLS = {
    "x86_64": _Calls(
        0xC000003E,
        (41, 42, 49, 59, 322, 101, 62, 200, 129, 297, 424, 85, 82, 264, 316, 87, 263, 437),
        ((2, 1), (257, 2)),
        234,
    ),
    "aarch64": _Calls(
        0xC00000B7, (198, 203, 200, 221, 281, 117, 129, 130, 138, 240, 424, 38, 276, 35, 437), ((56, 2),), 131
    ),
}


def enter_sandbox() -> bool:
    """Confine this process for good; return whether that could be done."""
    calls = _CALLS.get(platform.machine()) if sys.platform == "linux" else None
    if calls is None:
        return False
    program = _program(calls)
    libc = ctypes.CDLL(None, use_errno=True)
    instructions = ctypes.create_string_buffer(b"".join(program))
    head = struct.pack("HxxxxxxP", len(program), ctypes.addressof(instructions))  # struct sock_fprog
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.create_string_buffer(head), 0, 0) == 0)


def _program(calls: _Calls) -> list[bytes]:
    """Return the filter: each instruction jumps over the next one unless its test is met."""
    program = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, calls.audit, met=1),
        _instruction(_RETURN, _FAIL),
        _instruction(_LOAD, _NUMBER),
        _instruction(_AT_LEAST, _OTHER_ABI, unmet=1),
        _instruction(_RETURN, _FAIL),
    ]
    for number in calls.denied:
        program += [_instruction(_EQUAL, number, unmet=1), _instruction(_RETURN, _FAIL)]
    for number, argument in calls.opening:
        program += [
            _instruction(_EQUAL, number, unmet=4),
            _instruction(_LOAD, _ARGUMENTS + 8 * argument),
            _instruction(_ANY_BIT, _WRITING, unmet=1),
            _instruction(_RETURN, _FAIL),
            _instruction(_RETURN, _ALLOW),
        ]
    program += [
        _instruction(_EQUAL, calls.tgkill, unmet=4),
        _instruction(_LOAD, _ARGUMENTS),
        _instruction(_EQUAL, os.getpid(), unmet=1),
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _FAIL),
    ]
    return [*program, _instruction(_RETURN, _ALLOW)]


def _instruction(code: int, value: int, *, met: int = 0, unmet: int = 0) -> bytes:
    return struct.pack("HBBI", code, met, unmet, value)
