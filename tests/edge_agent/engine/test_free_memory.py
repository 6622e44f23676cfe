"""What a process may still take, from files and limits that are not this machine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.engine.free_memory import free_bytes, is_out_of_memory

MIB = 2**20


def no_limit(_: str) -> None:
    return None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 8,000 MiB free, on which this process has 300 MiB, of an address space of 2,000."""
    write(
        tmp_path, "proc/meminfo", f"MemTotal: {16000 * 1024} kB\nMemAvailable: {8000 * 1024} kB\nHugePages_Total: 0\n"
    )
    write(tmp_path, "proc/self/status", f"Name:\tpython\nVmSize:\t{2000 * 1024} kB\nVmData:\t{500 * 1024} kB\n")
    return tmp_path


def write(root: Path, name: str, text: object) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", encoding="utf-8")


def group(root: Path, folder: str, limit: object, usage: int, cached: int, *, version: int) -> None:
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
             2: ("memory.max", "memory.current", "inactive_file")}[version]  # fmt: skip
    write(root, f"sys/fs/cgroup/{folder}/{names[0]}", limit)
    write(root, f"sys/fs/cgroup/{folder}/{names[1]}", usage)
    write(root, f"sys/fs/cgroup/{folder}/memory.stat", f"anon 1\n{names[2]} {cached}\n")


def test_without_limits_it_is_what_the_machine_has(root: Path) -> None:
    assert free_bytes(root, no_limit) == 8000 * MIB


def test_a_system_that_does_not_say_leaves_it_open(tmp_path: Path) -> None:
    assert free_bytes(tmp_path, no_limit) is None


def test_a_group_above_counts_and_cached_files_do_not(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/slice/run")
    group(root, "slice/run", "max", 700 * MIB, 0, version=2)
    group(root, "slice", 6000 * MIB, 1000 * MIB, 400 * MIB, version=2)
    assert free_bytes(root, no_limit) == 5400 * MIB


def test_groups_of_the_first_version_count(root: Path) -> None:
    write(root, "proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/box/run\n0::/")
    group(root, "memory/box/run", 3000 * MIB, 1000 * MIB, 100 * MIB, version=1)
    group(root, "memory", 2**63 - 4096, 1000 * MIB, 0, version=1)
    assert free_bytes(root, no_limit) == 2100 * MIB


def test_in_a_container_its_own_group_is_the_top(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/the/path/on/the/host")
    group(root, ".", 2000 * MIB, 500 * MIB, 0, version=2)
    assert free_bytes(root, no_limit) == 1500 * MIB


@pytest.mark.parametrize(
    ("limits", "free"),
    [
        ({"RLIMIT_AS": 5000 * MIB}, 3000 * MIB),
        ({"RLIMIT_DATA": 1500 * MIB}, 1000 * MIB),
        ({"RLIMIT_AS": 5000 * MIB, "RLIMIT_DATA": 9000 * MIB}, 3000 * MIB),
        ({"RLIMIT_AS": 100 * MIB}, 0),
    ],
)
def test_the_limits_of_the_process_count(root: Path, limits: dict[str, int], free: int) -> None:
    assert free_bytes(root, limits.get) == free


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    torch_says = (
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
    )
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(RuntimeError(torch_says))
    assert is_out_of_memory(OSError(12, "Cannot allocate memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
