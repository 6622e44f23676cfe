"""How much memory this process may still take: the least of what the machine, its control groups and its limits leave.

Does not guard against: what other processes take later, limits of a hypervisor that the machine does not show.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# Source: Linux Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. Files, by version: limit, usage, and
# the line of memory.stat that counts what of the usage is cached files, which the kernel gives up first.
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")

# How torch, C++ and the system say that there is no memory. Source: torch c10/core/impl/alloc_cpu.cpp, libstdc++.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "bad_alloc", "out of memory")

ReadLimit = Callable[[str], int | None]


def process_limit(name: str) -> int | None:
    """Return a limit of this process in bytes, such as RLIMIT_AS; None if there is none."""
    if resource is None:
        return None
    soft, _ = resource.getrlimit(getattr(resource, name))
    return None if soft == resource.RLIM_INFINITY else int(soft)


def free_bytes(root: Path = Path("/"), limit_of: ReadLimit = process_limit) -> int | None:
    """Return how many bytes this process may still take; None where the system does not say (no /proc).

    Args:
        root: of the file system that has proc and sys.
        limit_of: gives a limit of this process by its name.
    """
    status = _numbers(root / "proc/self/status")
    found = [_numbers(root / "proc/meminfo").get("MemAvailable"), *_of_groups(root)]
    for name, used in (("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")):
        limit = limit_of(name)
        found.append(None if limit is None else limit - status.get(used, 0))
    known = [count for count in found if count is not None]
    return max(0, min(known)) if known else None


def resident_bytes(root: Path = Path("/")) -> int:
    """Return the memory that this process has now; 0 where the system does not say."""
    return _numbers(root / "proc/self/status").get("VmRSS", 0)


def _numbers(path: Path) -> dict[str, int]:
    """Return the numbers of a file of lines `name: number kB`, in bytes; of none if there is no such file."""
    if not path.exists():
        return {}
    words = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    return {line[0].rstrip(":"): int(line[1]) * 1024 for line in words if len(line) == 3 and line[2] == "kB"}


def _of_groups(root: Path) -> Iterator[int]:
    """Yield what each control group that this process is in, and each above it, leaves."""
    listed = root / "proc/self/cgroup"
    if not listed.exists():
        return
    mount = root / "sys/fs/cgroup"
    for line in listed.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            tops, files = (mount, mount / "unified"), V2
        elif "memory" in controllers.split(","):
            tops, files = (mount / "memory", mount), V1
        else:
            continue
        for top in tops:
            group = top / path.lstrip("/")
            # In a container the path may be that of the host; then its own group is the top of what is mounted.
            for folder in (group, *group.parents):
                yield from _of_group(folder, files)
                if folder == top:
                    break


def _of_group(folder: Path, files: tuple[str, str, str]) -> Iterator[int]:
    limit, usage, cached = files
    try:
        most = (folder / limit).read_text(encoding="utf-8").strip()
        used = int((folder / usage).read_text(encoding="utf-8"))
        lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    if most.isdigit():
        yield int(most) - used + sum(int(line.split()[1]) for line in lines if line.split()[:1] == [cached])


def share_of_process() -> int:
    """Return how many processes of this run take their part of this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, in whichever library."""
    is_named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's of a GPU
    return is_named or any(text in str(error) for text in OUT_OF_MEMORY)
