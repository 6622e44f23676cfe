"""Checks of the site: whether the bundle works it, and whether the machine has what its drivers need.

Does not guard against: a device that is there and does not answer; `edgewright devices read --live` asks.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from devices.broker.narrowing import narrowed
from devices.driver import Needs
from devices.site.site import Site
from edge_agent.agent.session import fitting_site
from edge_agent.box.finding import Finding, failure, ok, warning
from edge_agent.box.machine import Machine, group_name, joins_at_next_login, user_name
from edge_agent.bundle import Bundle

CONNECT_S = 2.0
READ_WRITE = os.R_OK | os.W_OK
_BOTH = stat.S_IRGRP | stat.S_IWGRP
RULE = 'give it a group by a udev rule (GROUP="dialout", MODE="0660"), and join that group'
ABSENT = {  # what to do where a device file is not there, by how its name begins
    "/dev/tty": "is it plugged in? `edgewright devices discover` lists the serial lines that are there",
    "/dev/serial": "is it plugged in? `edgewright devices discover` lists the serial lines that are there",
    "/dev/i2c": "switch the bus on (Raspberry Pi: sudo raspi-config, Interface Options, I2C), and start anew",
    "/dev/gpio": "take another `chip` or `factory`; `edgewright devices discover` lists the pin chips that are there",
}


def check_site(site: Site, bundle: Bundle | None, *, is_live: bool) -> list[Finding]:
    """Find a site that the bundle cannot work, and devices without a driver.

    Args:
        site: whose devices are worked.
        bundle: None if it cannot be opened.
        is_live: whether every device must have a driver.

    Raises:
        EdgeError: the bundle was trained for another contract, its policy cannot be kept, or a device has no driver.
    """
    name = "site"
    text = f"{site.name}: {len(site.devices) or len(site.functions)} {'devices' if site.devices else 'tools'}"
    if bundle is None:
        return [ok(name, f"{text}; not compared with the bundle, which cannot be opened")]
    _, is_live, is_known = fitting_site(bundle, site, is_live=is_live)
    narrowed(site, bundle.site)
    text += ", which the model knows" if is_known else ", new to the model: it is tried on it at the first start"
    homeless = [device for device, one in site.devices.items() if not one.driver]
    if site.devices and len(homeless) == len(site.devices):
        return [ok(name, f"{text}; no device has a driver, so that it runs simulated only")]
    if homeless:
        text += (
            f"; {', '.join(homeless)} {'has' if len(homeless) == 1 else 'have'} no driver, so that --live is refused"
        )
        return [warning(name, text, "give each device `driver` and `at` in the site file")]
    return [ok(name, text)]


def check_needs(machine: Machine, driver: str, needs: Needs, *, is_live: bool) -> list[Finding]:
    """Find what a driver needs and cannot have: device files, files, programs, and with `is_live` its hosts."""
    found: list[Finding] = []
    for pattern in needs.devices:
        found += _device_files(machine, driver, pattern)
    for path in needs.reads:
        found += _file(driver, Path(path), machine)
    for program in needs.runs:
        if shutil.which(program) is None:
            found.append(failure(driver, f"there is no program {program}", "install it, or name it by its path"))
        else:
            found.append(ok(driver, f"{program} can be run"))
    found += [_peer(driver, host, port, is_live=is_live) for host, port in needs.peers]
    return found or [ok(driver, "needs no device file, file, program or host")]


def _device_files(machine: Machine, driver: str, pattern: str) -> Iterator[Finding]:
    exact = machine.at(pattern)
    paths = [exact] if exact.exists() else sorted(machine.root.glob(pattern.lstrip("/")))
    if not paths:
        advice = (advice for begin, advice in ABSENT.items() if pattern.startswith(begin))
        yield failure(
            driver, f"{pattern} is not there", next(advice, "is it plugged in, and named rightly in the site?")
        )
    for path in paths:
        yield _device_file(machine, driver, Path(path))


def _device_file(machine: Machine, driver: str, path: Path) -> Finding:
    status = path.stat()
    group, mode = group_name(status.st_gid), stat.filemode(status.st_mode)
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        text = (
            f"{path} is no device but a plain file or folder, as is left when something writes to a device that is gone"
        )
        return failure(driver, text, f"sudo rm {path}, then plug the device in")
    text = f"{path} is of the group {group or status.st_gid}, {mode}"
    if machine.may(path, READ_WRITE):
        return ok(driver, f"{text}; {user_name()} may read and write it")
    text += f"; {user_name()} may not read and write it"
    if joins_at_next_login(status.st_gid):
        fix = f"log in again (a service: restart it): {user_name()} is in {group} since this session began"
    elif group and group != "root" and status.st_mode & _BOTH == _BOTH:
        fix = f"sudo usermod -aG {group} {user_name()}, then log in again (a service: restart it)"
    else:
        fix = RULE
    return failure(driver, text, fix)


def _file(driver: str, path: Path, machine: Machine) -> Iterator[Finding]:
    if not path.is_file():
        yield failure(driver, f"there is no file {path}", "put it there, or name another in the site file")
    elif not machine.may(path, os.R_OK):
        yield failure(driver, f"{user_name()} may not read {path}", f"sudo chgrp GROUP {path} && sudo chmod g+r {path}")
    else:
        yield ok(driver, f"{path} can be read")


def _peer(driver: str, host: str, port: int, *, is_live: bool) -> Finding:
    where = f"{host}:{port}"
    if not is_live:
        return ok(driver, f"{where} is reached over the network; not tried without --live")
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        text = f"{where} does not take a connection within {CONNECT_S:g} s: {reason}"
        return failure(driver, text, "is it on, in this network, and at this address? ping it")
    return ok(driver, f"{where} takes connections")


def all_modules(needs: Mapping[str, Needs]) -> dict[str, str]:
    """Return the Python modules that drivers import, with the package of each."""
    return dict(Needs.of_all(needs.values()).modules)
