"""A box kit: wheels for the box's machine, their hashes, and install.sh, which needs nothing else.

The wheels are those of the packages here, of the same versions, so that what was tested is what runs. Ours has no
training side. pip evaluates conditions on the machine ("; platform_machine == …") as this one.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distributions, version
from pathlib import Path

from devices.durable import sha256_of
from devices.errors import UnavailableError, UsageError
from edge_agent.progress import ProgressBar
from export.kit.cross_compile import LLAMA_CPP, compiled_wheel
from export.pip_command import pip_problem
from export.quantize.targets import Build, load_build

CHECKOUT = Path(__file__).resolve().parent.parent.parent
OURS = "devices edge_agent export edgewright.py edgewright_demo.py pyproject.toml README.md LICENSE".split()
WHEELS, REQUIREMENTS, FACTS, INSTALLER, SUMS = "wheels", "requirements.txt", "kit.json", "install.sh", "SHA256SUMS"
NEWEST_GLIBC = 36  # of manylinux_2_17 to this; Debian 12 and Raspberry Pi OS of 2023 have 2.36


@dataclass(frozen=True)
class Kit:
    """What a kit is: its name, and how much of it there is."""

    id: str
    wheels: int
    size_bytes: int


def build_kit(out: Path, target: str, pythons: Sequence[str], extras: Sequence[str], progress: ProgressBar) -> Kit:
    """Make a kit for a target in a new folder.

    Args:
        out: where; not there yet, or an empty folder.
        target: as `load_target` takes it.
        pythons: versions of Python that the box may have, such as 3.11.
        extras: of our package, such as box and serve.
        progress: told of what takes long.

    Raises:
        UsageError: no such target, or one that names no machine; `out` is taken; this is no checkout.
        UnavailableError: no cross compiler, or a package that has no wheel for the box.
    """
    build = load_build(target)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already", hint="give a new folder, or remove it")
    if not (CHECKOUT / "pyproject.toml").is_file():
        raise UsageError("a kit is made in a checkout of edgewright, and this is an installed package")
    llama_cpp = compiled_wheel(build, progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".kit-", dir=out.parent) as aside:
        folder = Path(aside) / "kit"
        wheels = folder / WHEELS
        wheels.mkdir(parents=True)
        shutil.copy(llama_cpp, wheels)
        ours = _own_wheel(wheels)
        progress.note("fetching the packages for the box")
        _fetch(f"{ours}[{','.join(extras)}]", wheels, build, pythons)
        name = _write_rest(folder, target, build, pythons)
        folder.rename(out)  # over an empty folder, if there is one
    files = [path for path in out.rglob("*") if path.is_file()]
    return Kit(name, len(list((out / WHEELS).iterdir())), sum(path.stat().st_size for path in files))


def _own_wheel(folder: Path) -> Path:
    """Return our wheel, made in a folder, without finetune."""
    with tempfile.TemporaryDirectory() as aside:
        source = Path(aside) / "source"
        source.mkdir()
        for name in OURS:
            if (CHECKOUT / name).is_dir():
                shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(CHECKOUT / name, source)
        _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    return next(folder.glob("edgewright-*.whl"))


def _fetch(package: str, folder: Path, build: Build, pythons: Sequence[str]) -> None:
    """Download all that a package needs, and pip, for the box's machine and each of its Pythons."""
    platforms = [f"manylinux_2_{minor}_{build.machine}" for minor in range(NEWEST_GLIBC, 16, -1)]
    platforms += [f"manylinux2014_{build.machine}", f"linux_{build.machine}"]
    pins = {one.metadata["Name"]: one.version for one in distributions()} | {"pip": version("pip")}
    with tempfile.TemporaryDirectory() as aside:
        constraints = Path(aside) / "constraints.txt"
        lines = [f"{name}=={release}\n" for name, release in sorted(pins.items()) if name != "edgewright"]
        constraints.write_text("".join(lines), encoding="utf-8")
        for python in pythons:
            options = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
            options += [word for one in platforms for word in ("--platform", one)]
            options += [word for one in (f"cp{python.replace('.', '')}", "abi3", "none") for word in ("--abi", one)]
            places = ["--dest", str(folder), "--find-links", str(folder), "--constraint", str(constraints)]
            _pip("download", *options, *places, package, "pip")


def _pip(verb: str, *words: str) -> None:
    if problem := pip_problem(verb, *words):
        raise UnavailableError(f"pip {verb}: {problem}", hint="is there a network?")


def _write_rest(folder: Path, target: str, build: Build, pythons: Sequence[str]) -> str:
    """Write what install.sh reads, and last of all the hashes of everything; return the kit's name."""
    hashes = defaultdict(list)
    for wheel in sorted((folder / WHEELS).iterdir()):
        name, release = wheel.name.split("-")[:2]
        hashes[re.sub(r"[-_.]+", "-", name).lower(), release].append(sha256_of(wheel))
    lines = [
        " ".join([f"{name}=={release}", *(f"--hash=sha256:{digest}" for digest in digests)])
        for (name, release), digests in hashes.items()
        if name != "pip"
    ]
    requirements = "\n".join(lines) + "\n"
    (folder / REQUIREMENTS).write_text(requirements, encoding="utf-8")
    name = f"{version('edgewright')}-{hashlib.sha256(requirements.encode()).hexdigest()[:12]}"
    facts = {"schema": "kit/v1", "id": name, "target": target, "machine": build.machine, "pythons": list(pythons)}
    facts |= {"compiler_flags": build.compiler_flags, LLAMA_CPP: version(LLAMA_CPP)}
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    text = (Path(__file__).parent / INSTALLER).read_text(encoding="utf-8")
    for key, value in (("@ID@", name), ("@MACHINE@", build.machine), ("@PYTHONS@", " ".join(pythons))):
        text = text.replace(key, value)
    (folder / INSTALLER).write_text(text, encoding="utf-8")
    (folder / INSTALLER).chmod(0o755)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = "".join(f"{sha256_of(path)}  {path.relative_to(folder)}\n" for path in files)
    (folder / SUMS).write_text(sums, encoding="utf-8")
    return name
