"""Checks of the machine: processor, Python, memory, clock, temperature."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from edge_agent.box.finding import Finding, failure, ok, size_text, warning
from edge_agent.box.machine import Machine
from edge_agent.engine.free_memory import free_bytes
from edge_agent.engine.memory_need import MemoryNeed

OLDEST_PYTHON = (3, 11)  # pyproject.toml, requires-python
HOTTEST_C = 80.0  # where a Raspberry Pi begins to slow down. Source: Raspberry Pi documentation, frequency management
SANDBOXED = {"x86_64", "aarch64"}  # edge_agent/engine/sandbox.py
# How the kernel's /proc/cpuinfo calls what llama.cpp's llama_print_system_info does.
# Source: ggml/src/ggml-cpu/ggml-cpu.cpp; arch/x86/include/asm/cpufeatures.h; arch/arm64/kernel/cpuinfo.c.
FLAGS = {
    "SSE3": "pni", "SSSE3": "ssse3", "AVX": "avx", "AVX_VNNI": "avx_vnni", "AVX2": "avx2", "F16C": "f16c",
    "FMA": "fma", "BMI2": "bmi2", "AVX512": "avx512f", "AVX512_VBMI": "avx512vbmi", "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16", "AMX_INT8": "amx_int8", "NEON": "asimd", "ARM_FMA": "asimd", "FP16_VA": "asimdhp",
    "DOTPROD": "asimddp", "MATMUL_INT8": "i8mm", "SVE": "sve", "SME": "sme",
}  # fmt: skip
ARM_UNITS = {"asimddp": "dotprod", "asimdhp": "fp16", "i8mm": "i8mm"}
COMPILE_HERE = "compile it on this machine: pip install --force-reinstall --no-deps --no-binary llama-cpp-python"


def check_processor(machine: Machine, features: Collection[str], version: str) -> list[Finding]:
    """Find an architecture on which the engine does not run, and instruction sets that llama.cpp wants in vain.

    Args:
        machine: its /proc/cpuinfo tells.
        features: what llama.cpp here was compiled for, in its own words.
        version: of llama-cpp-python here, or "".
    """
    name, told = "processor", machine.text("/proc/cpuinfo")
    if machine.pointer_bits < 64:
        text = f"{machine.architecture} with a Python of {machine.pointer_bits} bits; the engine needs 64"
        return [failure(name, text, "install a 64-bit system with its Python")]
    values = machine.values("/proc/cpuinfo")
    has = set((values.get("flags") or values.get("Features") or "").split())
    cores = sum(line.startswith("processor") for line in told.splitlines())
    said = f"{machine.architecture}, {cores or 'unknown'} core{'s' * (cores != 1)}"
    if "asimd" in has:
        said += ", " + ", ".join(f"{'' if flag in has else 'no '}{unit}" for flag, unit in ARM_UNITS.items())
    wanted = [FLAGS[one] for one in features if one in FLAGS]
    missing = [flag for flag in wanted if has and flag not in has]
    if missing:
        text = f"{said}; llama.cpp here is compiled for {', '.join(missing)}, which this processor does not have"
        return [failure(name, text, f"{COMPILE_HERE} llama-cpp-python=={version}")]
    if wanted and has:
        said += f"; llama.cpp is compiled for {', '.join(dict.fromkeys(wanted))}, all there"
    if machine.architecture not in SANDBOXED:
        text = f"{said}; the engine's process is not confined on this architecture"
        return [warning(name, text, "take a box with x86_64 or aarch64, or one on which nobody else's model runs")]
    return [ok(name, said)]


def check_python(machine: Machine) -> list[Finding]:
    """Find a Python that is too old."""
    has, oldest = ".".join(map(str, machine.python)), ".".join(map(str, OLDEST_PYTHON))
    if machine.python < OLDEST_PYTHON:
        return [failure("Python", f"{has} is here, {oldest} or newer is needed", f"install Python {oldest} or newer")]
    return [ok("Python", f"{has}; {oldest} or newer is needed")]


def check_memory(machine: Machine, one: MemoryNeed | None, served: MemoryNeed | None, conversations: int) -> Finding:
    """Find too little memory.

    Args:
        machine: its /proc/meminfo and its control groups tell.
        one: what `edgewright run` needs, with one conversation; None if the bundle cannot be opened.
        served: what `edgewright serve` needs, with as many conversations as it has by default.
        conversations: that number.
    """
    name, values = "memory", machine.values("/proc/meminfo")
    available, total = free_bytes(machine.at("/"), lambda name: None), _kib(values.get("MemTotal", ""))
    if not available:
        return warning(name, "/proc/meminfo does not tell what is free", "look yourself, with `free -m`")
    has = f"{size_text(available)} free of {size_text(total)}"
    if one is None or served is None:
        return warning(name, f"{has}; not compared, as the bundle cannot be read", "flash the bundle again")
    parts = {"model": one.weights, "context": one.context, "buffers": one.buffers, "processes": one.processes}
    text = f"{has}; about {size_text(one.total)} needed ("
    text += ", ".join(f"{what} {size_text(count)}" for what, count in parts.items())
    text += f"), {size_text(served.total)} to serve {conversations} conversations"
    fix = "end other programs, or export a smaller quantization (`edgewright export --target`)"
    if available < one.total:
        return failure(name, text, fix)
    if available < served.total:
        return warning(name, text, f"serve with --set conversations=1, {fix}")
    return ok(name, text)


def check_clock(machine: Machine, bundle_time: str) -> list[Finding]:
    """Find a clock that is wrong or may be; `bundle_time` is when the bundle was made, ISO 8601, or ""."""
    name, now = "clock", datetime.fromtimestamp(machine.now_s(), UTC)
    said = f"{now:%Y-%m-%d %H:%M} UTC"
    has_clock = machine.at("/proc/driver/rtc").exists() or any(machine.at("/sys/class/rtc").glob("rtc*"))
    rest = "" if has_clock else "; no real-time clock: without a network it is wrong after a power cut"
    made = _parsed(bundle_time)
    if made is not None and now < made:
        text = f"{said} is before the bundle was made ({made:%Y-%m-%d}){rest}"
        return [warning(name, text, "set it: sudo timedatectl set-ntp true, or sudo date -s '2026-01-31 12:00'")]
    if (is_right := machine.is_synchronized()) is False:
        fix = "sudo timedatectl set-ntp true; on a box without a network a real-time clock"
        return [warning(name, f"{said}, which no time server keeps right{rest}", fix)]
    return [ok(name, f"{said}, {'kept right by a time server' if is_right else 'synchronization unknown'}{rest}")]


def check_temperature(machine: Machine) -> list[Finding]:
    """Find a processor that is so hot that it slows down."""
    measured: dict[str, float] = {}
    for zone in sorted(machine.at("/sys/class/thermal").glob("thermal_zone*")):
        told = machine.text(f"/sys/class/thermal/{zone.name}/temp").strip()
        if told.lstrip("-").isdigit():
            kind = machine.text(f"/sys/class/thermal/{zone.name}/type").strip()
            measured[f"{zone.name} {kind}".strip()] = int(told) / 1000
    if not measured:
        return [ok("temperature", "no sensor under /sys/class/thermal")]
    hottest = max(measured, key=lambda one: measured[one])
    text = f"{measured[hottest]:.0f} degrees C ({hottest}); slower above {HOTTEST_C:.0f}"
    if measured[hottest] > HOTTEST_C:
        return [warning("temperature", text, "give it a heat sink, a fan or more air")]
    return [ok("temperature", text)]


def _kib(text: str) -> int:
    """Return a number of KiB, as "24105 kB" in /proc/meminfo, in bytes; 0 if it is none."""
    number = text.removesuffix(" kB")
    return int(number) * 1024 if number.isdigit() else 0


def _parsed(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
