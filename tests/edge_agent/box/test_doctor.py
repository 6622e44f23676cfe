"""`edgewright doctor` says of a whole box that it runs, and of each thing that is wrong what it is and what to do."""

from __future__ import annotations

import grp
import json
import os
import shutil
import socket
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devices.broker.journal import JOURNAL_IN_BOX, Journal
from devices.driver import Needs
from devices.site.site import SITES_FOLDER, load_site
from edge_agent.box.doctor import examine
from edge_agent.box.finding import Finding, Report, failure, ok
from edge_agent.box.hardware import check_clock, check_memory, check_processor, check_python, check_temperature
from edge_agent.box.machine import Machine
from edge_agent.box.module_imports import import_problems
from edge_agent.box.site_needs import RULE, check_needs, check_site
from edge_agent.box.software import check_llama_cpp, check_packages
from edge_agent.box.storage import (
    JOURNAL_BYTES,
    MARGIN_BYTES,
    check_disk,
    check_file_system,
    check_journal,
    check_state,
)
from edge_agent.bundle import BUNDLES, CURRENT, EXPORT, MODEL, open_bundle
from edge_agent.engine.llama_cpp_probe import Probe, probe
from edge_agent.engine.memory_need import MemoryNeed
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from edgewright import main
from export.bundle.writer import Parts, write_bundle
from export.convert.gguf_writer import convert
from export.flash.flash import flash
from finetune.recipe import STARTER_FOLDER
from tests.tiny_bundle import TINY_EXPORT, make_tiny_bundle

VERSION = "0.3.36"
NOW_S = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
ALL = {"processor", "Python", "memory", "clock", "temperature", "bundle", "disk", "file system", "journal", "llama.cpp",
       "site", "packages"}  # fmt: skip
SITE = """schema: site/v1
name: wired
title: a place
drivers:
  board: {type: gcode, serial: /dev/ttyUSB0}
  sensors: {type: i2c, bus: 1}
  shelly: {type: http, url: "http://192.168.1.30:8080"}
  typo: {type: modbus, hots: plc}
devices: {lamp: {model: light, driver: shelly, at: {"on": {rpc: Switch, key: output, set_key: "on"}}}}
"""


@pytest.fixture(scope="session")
def real_box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A box with the starter on it, which llama.cpp knows."""
    folder = tmp_path_factory.mktemp("doctor")
    template, home = load_template("chatml"), SITES_FOLDER / "home.yaml"
    digest = contract_of(load_site(home), template).digest
    model = folder / "model.gguf"
    convert(STARTER_FOLDER, None, model, template=template, name="starter", metadata={"contract": digest})
    versions = {"llama-cpp-python": VERSION}
    export = TINY_EXPORT | {"name": "whole", "contract": digest, "versions": versions}
    export["run"] = TINY_EXPORT["run"] | {"any_site": ""}  # type: ignore[operator]
    write_bundle(Parts("whole", "F16", model, home, template, None, export), folder / "whole")
    flash(folder / "whole", folder / "box")
    return folder / "box"


@pytest.fixture
def box(real_box: Path, tmp_path: Path) -> Path:
    return shutil.copytree(real_box, tmp_path / "box", symlinks=True)


@pytest.fixture
def tiny_box(tmp_path: Path) -> Path:
    flash(make_tiny_bundle(tmp_path / "tiny"), tmp_path / "box")
    return tmp_path / "box"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine on which all is well; its processor is this one."""
    root = tmp_path / "root"
    put(root, "proc/cpuinfo", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    put(root, "proc/meminfo", "MemTotal:        4000000 kB\nMemAvailable:    3000000 kB\n")
    put(root, "proc/driver/rtc", "rtc_time: 12:00:00\n")
    put(root, "sys/class/thermal/thermal_zone0/temp", "51500\n")
    put(root, "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    return Machine(root, now_s=lambda: NOW_S, is_synchronized=lambda: True)


def put(root: Path, path: str, text: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def as_user(uid: int, *gids: int) -> Callable[[Path, int], bool]:
    """Return what os.access says to another user: these tests may be root's, who may do everything."""

    def may(path: Path, wanted: int) -> bool:
        status = path.stat()
        shift = 6 if status.st_uid == uid else 3 if status.st_gid in gids else 0
        return (status.st_mode >> shift) & wanted == wanted

    return may


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def by_name(found: Report | list[Finding]) -> dict[str, Finding]:
    findings = found.findings if isinstance(found, Report) else found
    return {one.name: one for one in findings}


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1
    return findings[0]


# The whole


def test_a_whole_box_will_run_and_is_left_as_it_was(box: Path, machine: Machine) -> None:
    before = files_of(box)
    found = examine(box, machine=machine)
    assert {one.name: one.level for one in found.findings} == dict.fromkeys(ALL, "ok")
    assert found.will_run and str(found).endswith(f"the agent will run here: {len(ALL)} ok")
    found.require()
    assert files_of(box) == before


def test_the_command_looks_at_this_machine(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(box)]) == 0
    said = capsys.readouterr()
    assert "\nthe agent will run here: " in said.out and "looking at the bundle's files" in said.err
    for name in ALL:
        assert f" {name} " in said.out


def test_json(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(box), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["will_run"] is True and plain["box"] == str(box)
    assert {one["name"] for one in plain["findings"]} == ALL
    assert all(set(one) == {"name", "level", "text", "fix"} for one in plain["findings"])
    assert main(["doctor", str(box / "nowhere"), "--json"]) == 3
    plain = json.loads(capsys.readouterr().out)
    assert plain["will_run"] is False
    assert [one["name"] for one in plain["findings"] if one["level"] == "failure"] == ["bundle"]


def test_one_failure_hides_no_other(tiny_box: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cut file, a wrong driver, absent devices and an absent journal folder: all are told, without a traceback."""
    model = tiny_box / CURRENT / MODEL
    os.truncate(model, model.stat().st_size - 1)
    site = put(tmp_path, "site.yaml", SITE)
    assert main(["doctor", str(tiny_box), "--site", str(site), "--journal", str(tmp_path / "gone" / "j.sqlite")]) == 3
    said = capsys.readouterr()
    lines = said.out.splitlines()
    failures = [line.split(maxsplit=1)[1] for line in lines if line.startswith("failure")]
    assert any(
        line.startswith("bundle ") and "model.gguf: " in line and " bytes, the manifest" in line for line in failures
    )
    assert any(line.startswith("journal ") and str(tmp_path / "gone") in line for line in failures)
    assert any(line.startswith("driver board") and "/dev/ttyUSB0 is not there" in line for line in failures)
    assert any(line.startswith("driver sensors") and "/dev/i2c-1 is not there" in line for line in failures)
    assert any(line.startswith("driver typo") and "unknown key 'hots'" in line for line in failures)
    assert len(failures) == 5
    assert sum("fix: " in line for line in lines) == sum(line.startswith(("failure", "warning")) for line in lines)
    assert "192.168.1.30:8080 is reached over the network; not tried without --live" in said.out
    assert "Traceback" not in said.err and said.err.count("error: ") == 1


def test_a_bundle_that_is_on_no_box_has_no_disk_to_update(tmp_path: Path, machine: Machine) -> None:
    folder = make_tiny_bundle(tmp_path / "tiny")
    names = set(by_name(examine(folder, machine=machine)))
    assert names == ALL - {"disk", "file system", "journal"}
    open_bundle(folder)  # nothing was put into it


def test_of_a_bundle_that_cannot_be_opened_the_site_is_read(tiny_box: Path, machine: Machine) -> None:
    (tiny_box / CURRENT / EXPORT).unlink()
    found = by_name(examine(tiny_box, machine=machine))
    assert "export.json: the file is missing" in found["bundle"].text
    assert "home: 14 devices; not compared" in found["site"].text and found["disk"].level == "ok"


def test_a_finding_that_is_not_ok_has_a_fix() -> None:
    with pytest.raises(AssertionError, match="failure and the fix ''"):
        failure("x", "it is wrong", "")


# Machine


def test_processor_without_what_llama_cpp_is_compiled_for(machine: Machine) -> None:
    put(machine.root, "proc/cpuinfo", "processor : 0\nflags : sse avx\n\nprocessor : 1\nflags : sse avx\n")
    assert only(check_processor(machine, ["AVX", "OPENMP"], VERSION)).text.endswith(
        "2 cores; llama.cpp is compiled for avx, all there"
    )
    found = only(check_processor(machine, ["AVX", "AVX512"], VERSION))
    assert found.level == "failure" and "compiled for avx512f, which this processor does not have" in found.text
    assert found.fix.endswith(f"llama-cpp-python=={VERSION}")


def test_processor_on_arm(machine: Machine) -> None:
    arm = replace(machine, architecture="aarch64")
    put(machine.root, "proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd asimddp crc32\n")
    found = only(check_processor(arm, ["NEON", "DOTPROD"], VERSION))
    assert found.level == "ok" and found.text.startswith("aarch64, 1 core, dotprod, no fp16, no i8mm; ")
    assert "asimdhp" in only(check_processor(arm, ["FP16_VA"], VERSION)).text
    assert only(check_processor(replace(arm, architecture="riscv64"), [], VERSION)).level == "warning"
    assert only(check_processor(replace(arm, architecture="armv7l", pointer_bits=32), [], VERSION)).level == "failure"


def test_python(machine: Machine) -> None:
    assert only(check_python(replace(machine, python=(3, 11, 0)))).level == "ok"
    assert only(check_python(replace(machine, python=(3, 10, 12)))).level == "failure"


@pytest.mark.parametrize(("free_kb", "level"), [(200_000, "ok"), (150_000, "warning"), (90_000, "failure")])
def test_memory(machine: Machine, free_kb: int, level: str) -> None:
    put(machine.root, "proc/meminfo", f"MemTotal: 512000 kB\nMemAvailable: {free_kb} kB\n")
    one, served = (
        MemoryNeed(40_000_000, 20_000_000, 1_000_000, 60_000_000),
        MemoryNeed(40_000_000, 100_000_000, 0, 60_000_000),
    )
    found = check_memory(machine, one, served, 4)
    assert found.level == level and "about 121 MB needed (model 40 MB, context 20 MB" in found.text
    assert check_memory(machine, None, None, 4).level == "warning"
    for name, text in (("max", "100000000"), ("current", "50000000"), ("stat", "inactive_file 1000000")):  # a container
        put(machine.root, f"sys/fs/cgroup/box/memory.{name}", f"{text}\n")
    put(machine.root, "proc/self/cgroup", "0::/box\n")
    limited = check_memory(machine, one, served, 4)
    assert limited.level == "failure" and limited.text.startswith("51 MB free of 524 MB")


def test_too_little_memory_for_a_box(box: Path, machine: Machine) -> None:
    """What is needed is more than the two processes: the model's file and its context are among it."""
    put(machine.root, "proc/meminfo", "MemTotal: 512000 kB\nMemAvailable: 145000 kB\n")
    found = by_name(examine(box, machine=machine))["memory"]
    assert (
        found.level == "failure"
        and "148 MB free of 524 MB; about 159 MB needed (model 8 MB, context 6 MB" in found.text
    )


def test_clock(machine: Machine) -> None:
    good = only(check_clock(machine, "2026-01-01T00:00:00Z"))
    assert good.level == "ok" and "no real-time clock" not in good.text
    early = only(check_clock(machine, "2026-06-02T00:00:00Z"))
    assert early.level == "warning" and "before the bundle was made (2026-06-02)" in early.text
    adrift = replace(machine, is_synchronized=lambda: False)
    assert "no time server" in only(check_clock(adrift, "")).text
    assert only(check_clock(replace(machine, is_synchronized=lambda: None), "nonsense")).level == "ok"
    (machine.root / "proc/driver/rtc").unlink()
    noted = only(check_clock(machine, ""))
    assert noted.level == "ok" and "no real-time clock" in noted.text


def test_the_clock_is_compared_with_the_bundle_that_is_there(tiny_box: Path, machine: Machine) -> None:
    found = examine(tiny_box, machine=replace(machine, now_s=lambda: 86400.0))
    assert by_name(found)["clock"].text.startswith("1970-01-02 00:00 UTC is before the bundle was made (2026-01-01)")


def test_temperature(machine: Machine) -> None:
    assert only(check_temperature(machine)).text.startswith("52 degrees C (thermal_zone0 cpu-thermal)")
    put(machine.root, "sys/class/thermal/thermal_zone1/temp", "80100\n")
    put(machine.root, "sys/class/thermal/thermal_zone2/temp", "\n")  # a sensor that is switched off
    assert only(check_temperature(machine)).level == "warning"
    shutil.rmtree(machine.root / "sys")
    assert only(check_temperature(machine)).level == "ok"


# Disk and journal


def test_disk(tiny_box: Path, machine: Machine) -> None:
    folder = (tiny_box / CURRENT).resolve()
    size = sum(path.stat().st_size for path in folder.iterdir())

    def level(free: int) -> str:
        return only(check_disk(replace(machine, free_bytes=lambda path: free), tiny_box, folder)).level

    assert level(size + MARGIN_BYTES) == "ok"
    assert level(size + MARGIN_BYTES - 1) == "warning"
    assert level(JOURNAL_BYTES - 1) == "failure"


def test_file_system(tiny_box: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(check_file_system(machine, tiny_box)).level == "ok"
    found = only(check_file_system(replace(machine, is_read_only=lambda path: True), tiny_box))
    assert found.level == "warning" and "read-only" in found.text and "remount,rw /" in found.fix
    tiny_box.chmod(0o555)
    assert only(check_file_system(replace(machine, may=as_user(1)), tiny_box)).level == "warning"
    tiny_box.chmod(0o755)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert "no symbolic links" in only(check_file_system(machine, tiny_box)).text
    assert {path.name for path in tiny_box.iterdir()} == {BUNDLES, CURRENT}


def test_journal(tiny_box: Path, machine: Machine) -> None:
    file = tiny_box / JOURNAL_IN_BOX
    assert "not there yet" in only(check_journal(machine, file, is_in_box=True)).text
    assert not file.parent.exists()
    file.parent.mkdir()
    journal = Journal(file)
    for _ in range(3):
        journal.append("PROPOSED", {}, 1.0)
    assert (
        "3 events, each as it was written" in only(check_journal(machine, file, is_in_box=True)).text
    )  # while written
    journal.close()
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE events SET body = '{\"a\": 1}' WHERE id = 2")
    found = by_name(examine(tiny_box, machine=machine))["journal"]
    assert found.level == "failure" and "event 2 is not what was written" in found.text and "--journal" in found.fix
    file.write_bytes(b"no database at all")
    assert "is not a journal" in by_name(examine(tiny_box, machine=machine))["journal"].text


def test_a_journal_that_cannot_be_written(tiny_box: Path, tmp_path: Path, machine: Machine) -> None:
    gone = only(check_journal(machine, tmp_path / "gone" / "journal.sqlite", is_in_box=False))
    assert gone.level == "failure" and f"the folder {tmp_path / 'gone'} is not there" in gone.text
    folder = tmp_path / "state"
    folder.mkdir(mode=0o555)
    other = replace(machine, may=as_user(os.getuid() + 1))
    assert only(check_journal(other, folder / "journal.sqlite", is_in_box=False)).level == "failure"
    folder.chmod(0o777)
    assert only(check_journal(other, folder / "journal.sqlite", is_in_box=False)).level == "ok"
    put(folder, "journal.sqlite", "").chmod(0o600)
    assert "may not read and write" in only(check_journal(other, folder / "journal.sqlite", is_in_box=False)).text
    mounted = replace(machine, is_read_only=lambda path: True)
    assert "mounted read-only" in only(check_journal(mounted, folder / "j.sqlite", is_in_box=False)).text
    assert only(check_state(mounted, tiny_box)).level == "failure"
    (tiny_box / "state").mkdir()
    assert check_state(mounted, tiny_box) == []


# llama.cpp and packages


def test_llama_cpp_versions() -> None:
    assert only(check_llama_cpp(Probe(VERSION), VERSION, is_model_whole=True)).level == "ok"
    found = only(check_llama_cpp(Probe(VERSION), "0.3.20", is_model_whole=True))
    assert found.level == "warning" and "exported with 0.3.20" in found.text and "==0.3.20" in found.fix


def test_a_model_that_llama_cpp_does_not_know(tiny_box: Path, machine: Machine) -> None:
    found = by_name(examine(tiny_box, machine=machine))
    assert found["bundle"].level == "ok"
    assert (
        found["llama.cpp"].level == "failure" and "but not the model: llama.cpp cannot load" in found["llama.cpp"].text
    )


@pytest.mark.parametrize(
    ("code", "text", "fix"),
    [
        ("raise ModuleNotFoundError(\"No module named 'llama_cpp'\")", "No module named", "edgewright[box]"),
        ("raise RuntimeError('libllama.so: cannot open')", "does not load: libllama.so: cannot open", "--no-binary"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
            "does not load: it ended with SIGILL",
            "--no-binary",
        ),
    ],
)
def test_a_llama_cpp_that_does_not_load(
    code: str, text: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "llama_cpp.py", code)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = only(check_llama_cpp(probe(), "", is_model_whole=False))
    assert found.level == "failure" and text in found.text and fix in found.fix


def test_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "dying_package.py", "import os; os.abort()")
    put(tmp_path, "odd_package.py", "print('hello'); raise ValueError('no board')")
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = {
        "serial": "pyserial",
        "no_such_module": "no-such-package",
        "dying_package": "dying",
        "odd_package": "odd",
    }
    good, *bad = check_packages(modules)
    assert good == ok("packages", "pyserial can be imported")
    assert [one.fix for one in bad] == ["pip install no-such-package", "pip install dying", "pip install odd"]
    assert "no_such_module" in bad[0].text and "ended with -6" in bad[1].text and "ValueError: no board" in bad[2].text
    assert import_problems(["json"]) == {}


# What drivers need


@pytest.fixture
def line(machine: Machine) -> Path:
    """Something that is no plain file, in the place of a serial line: of a group that is not root's, mode 0660."""
    path = machine.root / "dev" / "ttyUSB0"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    path.chmod(0o660)
    if os.getuid() == 0:
        os.chown(path, 0, next(one.gr_gid for one in grp.getgrall() if one.gr_name not in {"root"} and one.gr_gid))
    return path


SERIAL = Needs(devices=("/dev/ttyUSB0",))


def test_a_device_file(machine: Machine, line: Path) -> None:
    status = line.stat()
    group = grp.getgrgid(status.st_gid).gr_name
    in_group, stranger = as_user(status.st_uid + 1, status.st_gid), as_user(status.st_uid + 1)
    found = only(check_needs(replace(machine, may=in_group), "d", SERIAL, is_live=False))
    assert found.level == "ok" and f"of the group {group}, prw-rw----" in found.text
    found = only(check_needs(replace(machine, may=stranger), "d", SERIAL, is_live=False))
    assert found.level == "failure" and "may not read and write it" in found.text
    assert found.fix.startswith(f"sudo usermod -aG {group} ")
    line.chmod(0o640)  # to be in the group would not be enough
    for may in (in_group, stranger):
        found = only(check_needs(replace(machine, may=may), "d", SERIAL, is_live=False))
        assert found.level == "failure" and found.fix == RULE


def test_whoever_has_joined_the_group_already_logs_in_again(
    machine: Machine, line: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.box.machine.user_name", lambda: "eve")
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("dialout", "x", gid, ["eve"])))
    monkeypatch.setattr(os, "getegid", lambda: line.stat().st_gid + 1)
    found = only(check_needs(replace(machine, may=lambda *_: False), "d", SERIAL, is_live=False))
    assert found.fix.startswith("log in again")


def test_a_device_that_is_not_there(machine: Machine, line: Path) -> None:
    chips = Needs(devices=("/dev/gpiochip[04]", "/dev/i2c-1"))
    found = check_needs(machine, "d", chips, is_live=False)
    assert [one.level for one in found] == ["failure", "failure"]
    assert "edgewright devices discover" in found[0].fix and "raspi-config" in found[1].fix
    os.mkfifo(machine.root / "dev" / "gpiochip4")
    assert [one.level for one in check_needs(machine, "d", chips, is_live=False)] == ["ok", "failure"]
    line.unlink()
    line.write_text("G28\n", encoding="utf-8")
    found = check_needs(machine, "d", SERIAL, is_live=False)
    assert only(found).level == "failure" and "is no device but a plain file" in only(found).text
    assert stat.S_ISREG(line.stat().st_mode)


def test_files_and_programs(machine: Machine, tmp_path: Path) -> None:
    file = put(tmp_path, "shop.sqlite", "")
    file.chmod(0o600)
    needs = Needs(reads=(str(file), str(tmp_path / "gone.py")), runs=("sh", str(tmp_path / "no-program")))
    assert [one.level for one in check_needs(machine, "d", needs, is_live=False)] == ["ok", "failure", "ok", "failure"]
    other = replace(machine, may=as_user(file.stat().st_uid + 1))
    assert "may not read" in check_needs(other, "d", needs, is_live=False)[0].text
    assert only(check_needs(machine, "d", Needs(), is_live=False)).level == "ok"


def test_hosts_are_named_and_not_tried(machine: Machine) -> None:
    """Without --live: pytest-socket would say if a socket was opened."""
    found = only(check_needs(machine, "d", Needs(peers=(("192.168.1.20", 502),)), is_live=False))
    assert found == ok("d", "192.168.1.20:502 is reached over the network; not tried without --live")


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_hosts_are_tried_live(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        needs = Needs(peers=(("127.0.0.1", port),))
        assert only(check_needs(machine, "d", needs, is_live=True)).text == f"127.0.0.1:{port} takes connections"
    found = only(check_needs(machine, "d", needs, is_live=True))
    assert found.level == "failure" and "refused" in found.text


def test_site(tiny_box: Path, tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, home = open_bundle(tiny_box), load_site("home")
    found = only(check_site(home, bundle, is_live=False))
    assert found.level == "ok" and "which the model knows; no device has a driver" in found.text
    live = by_name(examine(tiny_box, is_live=True, machine=machine))["site"]
    assert live.level == "failure" and "has no driver in the site home" in live.text
    lamp = home.devices["porch_light"].model_copy(update={"driver": "relays"})
    driven = home.model_copy(update={"devices": home.devices | {"porch_light": lamp}})
    found = only(check_site(driven, bundle, is_live=False))
    assert found.level == "warning" and "kitchen_light" in found.text and "porch_light" not in found.text
    assert "11 devices, new to the model" in only(check_site(load_site("greenhouse"), bundle, is_live=False)).text
    other = by_name(examine(tiny_box, "bench_arm", machine=machine))["site"]
    assert other.level == "failure" and "was trained for home" in other.text
    assert main(["doctor", str(tiny_box), "--site", "no-such-site"]) == 3
    said = capsys.readouterr()
    assert "failure  site" in said.out and "ok       disk" in said.out and "Traceback" not in said.err
