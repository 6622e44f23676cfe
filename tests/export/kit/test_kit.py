"""Box kits: what goes in, what install.sh refuses, and one clear line for what is missing."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edgewright
from devices.errors import UnavailableError, UsageError
from edge_agent.progress import ProgressBar
from export.kit import kit as kits
from export.kit.cross_compile import compiled_wheel
from export.kit.kit import build_kit
from export.quantize.targets import Build, load_build

HERE = Build(machine="x86_64", compiler_flags="-march=x86-64-v3")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def made_kit(folder: Path, machine: str = platform.machine(), pythons: tuple[str, ...] = (PYTHON,)) -> Path:
    """Write what a kit has beside its wheels, of which there is one that is none."""
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels" / "thing-1.0-py3-none-any.whl").write_bytes(b"no wheel")
    kits._write_rest(folder, "box", HERE.model_copy(update={"machine": machine}), pythons)
    return folder


def installed(kit: Path, prefix: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    given = os.environ | {"PYTHON": sys.executable, "HOME": str(prefix.parent)} | environment
    return subprocess.run(
        ["sh", str(kit / "install.sh"), str(prefix)], env=given, capture_output=True, text=True, check=False
    )


def test_every_target_says_what_it_is_compiled_for() -> None:
    assert load_build("rpi5-8gb") == Build(machine="aarch64", compiler_flags="-mcpu=cortex-a76")
    assert load_build("x86-8gb").machine == "x86_64"


def test_a_target_without_a_machine_is_refused(tmp_path: Path) -> None:
    own = "schema: targets/v1\ntargets:\n  box: {memory_gib: 3.0, reserved_gib: 1.0, processor: x86}\n"
    (tmp_path / "boxes.yaml").write_text(own, encoding="utf-8")
    with pytest.raises(UsageError, match="has no `build`"):
        build_kit(tmp_path / "kit", f"{tmp_path / 'boxes.yaml'}:box", ["3.11"], ["box"], ProgressBar())


def test_a_folder_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match="is there already"):
        build_kit(tmp_path, "rpi5-8gb", ["3.11"], ["box"], ProgressBar())
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_without_a_cross_compiler_one_line_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match="aarch64-linux-gnu-gcc") as found:
        compiled_wheel(load_build("rpi5-8gb"), ProgressBar())
    assert found.value.hint == "apt-get install g++-aarch64-linux-gnu"


def test_our_wheel_has_no_training_side(tmp_path: Path) -> None:
    wheel = kits._own_wheel(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert "edge_agent/serving/serve.py" in names and "export/flash/flash.py" in names
    assert "devices/site/phrasings.yaml" in names
    assert not [name for name in names if name.startswith("finetune")]
    assert wheel.stat().st_size < 2e6


def test_without_the_training_side_the_commands_of_a_box_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edgewright, "find_spec", lambda name: None)
    app = edgewright.build_app()
    names = {one.name for one in app.registered_commands}
    assert {"run", "serve", "flash", "doctor", "selftest"} <= names and not {"train", "demo"} & names


def test_the_kit_names_every_wheel_by_its_hash(tmp_path: Path) -> None:
    kit = made_kit(tmp_path / "kit")
    assert "thing==1.0 --hash=sha256:" in (kit / "requirements.txt").read_text(encoding="utf-8")
    facts = json.loads((kit / "kit.json").read_text(encoding="utf-8"))
    assert facts["machine"] == platform.machine() and facts["id"] in (kit / "install.sh").read_text(encoding="utf-8")
    sums = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=kit, capture_output=True, check=False)
    assert sums.returncode == 0


def test_a_kit_for_another_machine_is_refused(tmp_path: Path) -> None:
    other = "x86_64" if platform.machine() == "aarch64" else "aarch64"
    done = installed(made_kit(tmp_path / "kit", other), tmp_path / "prefix")
    assert done.returncode == 2 and f"this kit is for {other}" in done.stderr
    assert not (tmp_path / "prefix").exists()


@pytest.mark.parametrize("name", ["wheels/thing-1.0-py3-none-any.whl", "requirements.txt"])
def test_a_damaged_kit_is_refused(name: str, tmp_path: Path) -> None:
    kit = made_kit(tmp_path / "kit")
    (kit / name).write_bytes((kit / name).read_bytes()[:-1])
    done = installed(kit, tmp_path / "prefix")
    assert done.returncode == 4 and "the kit is damaged" in done.stderr
    assert not (tmp_path / "prefix").exists()


def test_another_python_is_refused(tmp_path: Path) -> None:
    done = installed(made_kit(tmp_path / "kit", pythons=("3.99",)), tmp_path / "prefix")
    assert done.returncode == 3 and "no Python of 3.99" in done.stderr


def test_a_prefix_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = installed(made_kit(tmp_path / "kit"), tmp_path / "file" / "prefix")
    assert done.returncode == 2 and "cannot write to" in done.stderr
