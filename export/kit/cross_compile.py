"""llama-cpp-python compiled for a box's processor, which need not be this machine's. Kept in the cache.

Does not guard against: a box whose C library is older than the compiler's (install.sh on the box says so).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from devices.errors import UnavailableError
from edge_agent.base_models import cache_folder
from edge_agent.progress import ProgressBar, duration_text
from export.quantize.targets import Build

LLAMA_CPP = "llama-cpp-python"
EVERY_S = 30.0
# No OpenMP: its library is not on a bare machine, and llama.cpp has threads of its own. OpenSSL is for downloads.
OPTIONS = "-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DLLAMA_OPENSSL=OFF -DLLAVA_BUILD=OFF"


def compiled_wheel(build: Build, progress: ProgressBar) -> Path:
    """Return the wheel of llama-cpp-python, of the version here, for a box's processor.

    Raises:
        UnavailableError: no cross compiler, or it fails; the message names the log.
    """
    compilers = {
        "CMAKE_C_COMPILER": f"{build.machine}-linux-gnu-gcc",
        "CMAKE_CXX_COMPILER": f"{build.machine}-linux-gnu-g++",
    }
    for compiler in compilers.values():
        if not shutil.which(compiler):
            package = f"g++-{build.machine.replace('_', '-')}-linux-gnu"
            raise UnavailableError(f"no {compiler}, which compiles for the box", hint=f"apt-get install {package}")
    named = {"CMAKE_SYSTEM_NAME": "Linux", "CMAKE_SYSTEM_PROCESSOR": build.machine, **compilers}
    named |= dict.fromkeys(("CMAKE_C_FLAGS", "CMAKE_CXX_FLAGS"), build.compiler_flags)
    arguments = " ".join([*(f"-D{name}={value}" for name, value in named.items()), OPTIONS])
    release = version(LLAMA_CPP)
    key = hashlib.sha256(f"{release} {arguments} {_version_of(compilers['CMAKE_CXX_COMPILER'])}".encode()).hexdigest()
    folder = cache_folder() / "wheels" / f"{LLAMA_CPP}-{release}-{build.machine}-{key[:16]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        progress.note(
            f"compiling llama.cpp for {build.machine} {build.compiler_flags}: once, 5 to 15 minutes on 2 cores"
        )
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder.parent) as aside:
            made, log = Path(aside) / "wheel", folder.with_name(f"{folder.name}.log")
            _compile(f"{LLAMA_CPP}=={release}", arguments, made, log, progress)
            _retag(made, build.machine)
            made.rename(folder)
    return next(folder.glob("*.whl"))


def _version_of(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def _compile(package: str, arguments: str, folder: Path, log: Path, progress: ProgressBar) -> None:
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1)
    environment = os.environ | {"CMAKE_ARGS": arguments, "CMAKE_BUILD_PARALLEL_LEVEL": jobs}
    options = ["--no-deps", "--no-cache-dir", "--no-input", "--no-binary", LLAMA_CPP, "--wheel-dir", str(folder)]
    command = [sys.executable, "-m", "pip", "wheel", "--verbose", *options, package]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        seconds = 0.0
        while True:
            try:
                code = process.wait(EVERY_S)
                break
            except subprocess.TimeoutExpired:
                seconds += EVERY_S
                progress.note(f"compiling llama.cpp: {duration_text(seconds)} so far")
            except BaseException:
                process.terminate()
                raise
    if code:
        raise UnavailableError(f"llama.cpp does not compile for the box: exit code {code}", hint=f"see {log}")


def _retag(folder: Path, machine: str) -> None:
    """Name a wheel after the machine that it is for: pip names it after this one."""
    wheel = next(folder.glob("*.whl"))
    command = [sys.executable, "-m", "wheel", "tags", "--platform-tag", f"linux_{machine}", "--remove", str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
