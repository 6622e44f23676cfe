"""This machine as the checks see it, each fact through one place, so that a test can give another machine."""

from __future__ import annotations

import ctypes
import grp
import os
import platform
import pwd
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_STRUCT_TIMEX_BYTES = 512  # more than the 208 of 64-bit Linux
_TIME_ERROR = 5  # the clock is not synchronized


def kernel_is_synchronized() -> bool | None:
    """Return whether something keeps the clock right, as the kernel knows it; None if it does not tell.

    Source: adjtimex(2), which any user may ask, and which chrony, ntpd and systemd-timesyncd all tell.
    """
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_STRUCT_TIMEX_BYTES))
    except AttributeError:  # no Linux
        return None
    return None if state < 0 else state != _TIME_ERROR


def free_bytes(path: Path) -> int:
    """Return what this user may still write to a path's disk."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def is_read_only(path: Path) -> bool:
    """Return whether a path's file system is mounted read-only."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


@dataclass(frozen=True)
class Machine:
    """A machine, and the user who asks.

    Attributes:
        root: where its /dev, /proc and /sys are.
        architecture: as `uname -m` has it.
        pointer_bits: of its Python.
        python: its version.
        now_s: its clock, in seconds since 1970.
        may: whether this user may do something (os.R_OK, os.W_OK) with a file.
        is_synchronized: whether its clock is kept right; None is not known.
        free_bytes: what is free on a path's disk.
        is_read_only: whether a path's disk is mounted so.
    """

    root: Path = Path("/")
    architecture: str = field(default_factory=platform.machine)
    pointer_bits: int = 64 if sys.maxsize > 1 << 32 else 32
    python: tuple[int, int, int] = sys.version_info[:3]
    now_s: Callable[[], float] = time.time
    may: Callable[[Path, int], bool] = os.access
    is_synchronized: Callable[[], bool | None] = kernel_is_synchronized
    free_bytes: Callable[[Path], int] = free_bytes
    is_read_only: Callable[[Path], bool] = is_read_only

    def at(self, path: str) -> Path:
        """Return where a path such as /dev/ttyUSB0 is."""
        return self.root / path.lstrip("/") if path.startswith("/") else Path(path)

    def text(self, path: str) -> str:
        """Return what a file of /proc or /sys says, or "" if it is not there."""
        try:
            return self.at(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def values(self, path: str) -> dict[str, str]:
        """Return the first value of each `name: value` in a file, such as /proc/meminfo."""
        found: dict[str, str] = {}
        for line in self.text(path).splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
        return found


def user_name() -> str:
    """Return this user's name, or its number if it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def group_name(number: int) -> str:
    """Return a group's name, or "" if it has none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return ""


def joins_at_next_login(number: int) -> bool:
    """Return whether this user was put into a group that this session does not have yet."""
    try:
        members = grp.getgrgid(number).gr_mem
    except KeyError:
        return False
    return user_name() in members and number not in {*os.getgroups(), os.getegid()}
