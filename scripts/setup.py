"""Set up .venv for this checkout: the pinned packages, llama.cpp compiled for this CPU, and a base model.

Runs before anything is installed, so it uses the standard library only and says clearly what the machine lacks.
The compiled llama-cpp-python is cached in ~/.cache/edgewright/wheels (XDG_CACHE_HOME moves it) under a key of its
version, the Python, the CPU and CMAKE_ARGS. A second run with nothing changed returns at once.

Does not guard against: packages changed by hand inside .venv (delete .venv, then set up again).
"""

import sys

OLDEST_PYTHON = (3, 11)
if sys.version_info < OLDEST_PYTHON:
    sys.exit(
        f"setup: Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]}. "
        "Install python3.11 and python3.11-venv (Debian's names), or name a newer one: make setup PYTHON=/path/to/it"
    )

import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
STAMP = VENV / "edgewright-stamp"
LOG = ROOT / "build" / "setup.log"
CONSTRAINTS = ROOT / "constraints.txt"
BASE = "smollm2"  # edge_agent/base_models.py says where it is from
DEFAULT_CMAKE_ARGS = "-DLLAVA_BUILD=OFF"
# llama.cpp 0c1e57098 dies of its AMX code at the first evaluation; without it, weights are repacked for AVX-512.
WITHOUT_AMX = "-mno-amx-int8"
HEARTBEAT_S = 10
# What a build for "this machine" depends on. Source: the Linux kernel's /proc/cpuinfo on x86 and on ARM.
CPU_FIELDS = {"model name", "flags", "Features", "CPU implementer", "CPU architecture", "CPU variant", "CPU part"}


def main() -> None:
    """Bring .venv up to date, one set-up at a time, or leave with one line that says what is missing."""
    LOG.parent.mkdir(exist_ok=True)
    with LOG.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this checkout")
            fcntl.flock(lock, fcntl.LOCK_EX)
        set_up()


def set_up() -> None:
    """Do what is missing, step by step."""
    cmake_args = os.environ.get("CMAKE_ARGS") or default_cmake_args()
    version = pinned_version("llama-cpp-python")
    wheel_folder = cache_folder() / "wheels" / wheel_key(version, cmake_args)
    stamp = stamp_text(wheel_folder.name)
    stored = STAMP.read_text(encoding="utf-8") if STAMP.exists() else ""
    if stored == stamp and VENV_PYTHON.exists():
        return
    started = time.monotonic()
    wheel = next(wheel_folder.glob("*.whl"), None)
    require_tools(must_compile=wheel is None)
    LOG.write_bytes(b"")
    STAMP.unlink(missing_ok=True)
    is_new = place_of(stored) != place_of(stamp) or not VENV_PYTHON.exists()
    if is_new:
        run_step("creating .venv", [sys.executable, "-m", "venv", "--clear", str(VENV)])
    pip = [str(VENV_PYTHON), "-m", "pip", "--no-input", "--disable-pip-version-check"]
    install = [*pip, "install", "--constraint", str(CONSTRAINTS)]
    run_step("installing pip and setuptools", [*install, "pip", "setuptools"])
    if wheel is None:
        wheel = build_wheel(pip, version, cmake_args, wheel_folder)
    else:
        say(f"llama.cpp is compiled already: {wheel}")
    if is_new or f"\n{wheel_folder.name}\n" not in stored:
        run_step("installing llama.cpp", [*pip, "install", "--no-deps", "--force-reinstall", str(wheel)])
    run_step("installing packages", [*install, "--no-build-isolation", "--editable", f"{ROOT}[all,dev]"])
    STAMP.write_text(stamp, encoding="utf-8")
    import_base()
    say(f"ready in {seconds_since(started)}: .venv/bin/edgewright")


def import_base() -> None:
    """Fetch the base that recipes call smollm2 (92 MB, Apache-2.0), unless it is here; only what wants it needs it."""
    if (cache_folder() / "bases" / BASE / "config.json").is_file():
        return
    say(f"fetching the base {BASE} ...")
    command = [str(VENV_PYTHON), "-m", "edgewright", "base", "import", BASE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        say(f"the base {BASE} is not here ({reason}); later: edgewright base import {BASE}")


def default_cmake_args() -> str:
    """Return how llama.cpp is compiled unless CMAKE_ARGS says."""
    compiler = next(filter(shutil.which, filter(None, (os.environ.get("CC"), "cc", "gcc", "clang"))), None)
    if compiler is None or " amx_int8" not in cpu_text():
        return DEFAULT_CMAKE_ARGS
    known = subprocess.run(
        [compiler, WITHOUT_AMX, "-E", "-x", "c", os.devnull], capture_output=True, check=False
    ).returncode
    if known != 0:  # a compiler that has no such flag makes no such code
        return DEFAULT_CMAKE_ARGS
    return f"{DEFAULT_CMAKE_ARGS} -DCMAKE_C_FLAGS={WITHOUT_AMX} -DCMAKE_CXX_FLAGS={WITHOUT_AMX}"


def build_wheel(pip: list[str], version: str, cmake_args: str, folder: Path) -> Path:
    """Return the wheel of llama-cpp-python, compiled aside and renamed into `folder` when it is whole."""
    say(f"compiling llama.cpp for this CPU, once: 6 to 10 minutes on 2 cores; the output is in {LOG}")
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder.parent) as unfinished:
        aside = Path(unfinished) / "wheel"
        # pip's own cache is left out: it does not know for which CPU and with which flags a wheel was compiled.
        command = [*pip, "wheel", "--verbose", "--no-deps", "--no-cache-dir", "--no-binary", "llama-cpp-python"]
        command += ["--build-constraint", str(CONSTRAINTS), "--wheel-dir", str(aside), f"llama-cpp-python=={version}"]
        environment = os.environ | {"CMAKE_ARGS": cmake_args, "CMAKE_BUILD_PARALLEL_LEVEL": jobs}
        run_step("compiling llama.cpp", command, environment)
        sync(next(aside.glob("*.whl")))
        try:
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another set-up finished first, and its wheel is as good
                raise
    return next(folder.glob("*.whl"))


def run_step(title: str, command: list[str], environment: Mapping[str, str] | None = None) -> None:
    """Run a command with its output in the log; say how long it has been going, and leave if it fails."""
    started = time.monotonic()
    say(f"{title} ...")
    with LOG.open("ab") as log:
        log_start = log.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
            start_new_session=True,  # one group, so that the compilers end with the step
        )
        try:
            while process.poll() is None:
                try:
                    process.wait(timeout=HEARTBEAT_S)
                except subprocess.TimeoutExpired:
                    say(f"  {title}: {seconds_since(started)} so far: {last_lines(1, log_start)[:80]}")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
    if process.returncode != 0:
        sys.exit(f"{last_lines(20, log_start)}\nsetup: {title} failed; all of its output is in {LOG}")
    say(f"{title}: {seconds_since(started)}")


def require_tools(must_compile: bool) -> None:
    """Leave with one line that names what to install."""
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        name = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        sys.exit(f"setup: {sys.executable} cannot make environments; install {name} (Debian's name)")
    if not must_compile:
        return
    compilers = [os.environ.get("CXX"), "c++", "g++", "clang++"]
    if not any(shutil.which(name.split()[0]) for name in compilers if name):
        sys.exit("setup: no C++ compiler (c++, g++ or clang++), which llama.cpp needs; install g++ (Debian's name)")
    if not any(map(shutil.which, ("make", "gmake", "ninja"))):
        sys.exit("setup: neither make nor ninja, which compile llama.cpp; install make (Debian's name)")


def wheel_key(version: str, cmake_args: str) -> str:
    """Return the name under which a compiled wheel may be used again."""
    machine = [cpu_text(), cmake_args, " ".join(platform.libc_ver())]
    digest = hashlib.sha256("\n".join(machine).encode()).hexdigest()[:12]
    return f"llama_cpp_python-{version}-{sys.implementation.cache_tag}-{platform.machine()}-{digest}"


def cpu_text() -> str:
    """Return what a build for this CPU depends on: its model and its instruction sets."""
    try:
        first_core = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(line for line in first_core.splitlines() if line.split(":")[0].strip() in CPU_FIELDS)


def stamp_text(wheel_name: str) -> str:
    """Return what .venv was made from; its first line is the place, and a new place needs a new .venv."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    what = [project["build-system"], project["project"], project["tool"]["setuptools"]]  # not the linters' settings
    files = [CONSTRAINTS.read_text(encoding="utf-8"), Path(__file__).read_text(encoding="utf-8")]
    digest = hashlib.sha256(json.dumps([what, files]).encode()).hexdigest()
    return f"{ROOT} {sys.base_prefix} {sys.version.split()[0]}\n{wheel_name}\n{digest}\n"


def place_of(stamp: str) -> str:
    """Return the first line of a stamp."""
    return stamp.partition("\n")[0]


def pinned_version(name: str) -> str:
    """Return the version that constraints.txt gives a package."""
    found = re.search(rf"^{re.escape(name)}==(\S+)$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{name} is not in {CONSTRAINTS}"
    return found[1]


def cache_folder() -> Path:
    """Return where compiled wheels outlive a checkout. Source: XDG Base Directory Specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgewright"


def sync(path: Path) -> None:
    """Write a file through to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def last_lines(count: int, log_start: int) -> str:
    """Return the end of the log, without blank lines and without what stood there before byte `log_start`."""
    text = LOG.read_bytes()[log_start:].decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-count:])


def seconds_since(start: float) -> str:
    """Return a duration in words."""
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def say(text: str) -> None:
    """Print a plain line now, also when nobody reads along."""
    print(f"setup: {text}", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no step outlives the set-up
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nsetup: interrupted; run it again and it goes on where it can")
