"""The systemd unit of a box: agent, broker and doors as one service, that may touch what its site needs and no more.

Does not guard against: a driver's program or MCP server that needs more of the machine; widen the unit with
`systemctl edit edgewright`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from devices.driver import Needs
from devices.drivers.registry import site_needs
from devices.errors import UsageError
from devices.site.site import Site
from edge_agent.agent.session import fitting_site
from edge_agent.box.machine import group_name
from edge_agent.bundle import hold_bundle

STATE = PurePosixPath("/var/lib/edgewright")  # systemd gives it to the service's user, whoever that is today
WATCHDOG_S = 60
# By how a device file's name begins: the group that may use it, and what systemd calls all files of its driver.
# Source: Debian's udev rules; systemd.resource-control(5), DeviceAllow.
KINDS = {
    "/dev/tty": ("dialout", "char-tty*"),
    "/dev/serial/": ("dialout", "char-tty*"),
    "/dev/gpiochip": ("gpio", "char-gpiochip"),
    "/dev/i2c-": ("i2c", "char-i2c"),
}
# Source: systemd.exec(5). Not here: MemoryDenyWriteExecute, which libffi's callbacks may need, and ProcSubset=pid,
# which hides the /proc/meminfo that the engine reads.
HARDENING = """\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateMounts=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectProc=invisible
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
KeyringMode=private
RemoveIPC=yes
CapabilityBoundingSet=
AmbientCapabilities=
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
UMask=0077
"""


def unit_of(path: Path, own: Site | None, words: Sequence[str], *, is_live: bool, user: str = "") -> str:
    """Return the unit for a box that was flashed. `own` is another site than its bundle's; the rest as `unit_text`.

    Raises:
        UsageError: as `unit_text`, no box there, or a setting of the site's drivers is wrong.
        RefusedError: the bundle is damaged, or was made for another site.
    """
    with hold_bundle(path) as bundle:
        site, _, _ = fitting_site(bundle, own, is_live=is_live)
    needs = site_needs(site) if is_live else Needs()
    return unit_text(site.title, [*words, *(["--live"] if is_live else [])], path, needs, user)


def unit_text(title: str, words: Sequence[str], box: Path, needs: Needs, user: str = "") -> str:
    """Return a unit file that serves a box.

    Args:
        title: of the site.
        words: what follows `edgewright serve BOX` on the command line.
        box: the box's root.
        needs: what its live drivers need of the machine; nothing on a simulated site.
        user: who runs it; "" for one that systemd makes for as long as it runs, who owns STATE only.

    Raises:
        UsageError: the box is not under STATE, and no user is given.
    """
    place = PurePosixPath(box.absolute())
    if not user and not place.is_relative_to(STATE):
        raise UsageError(
            f"{place} is not under {STATE}, all that the service's own user may write to",
            hint=f"flash to {STATE}/box, or name a user of this machine with --user",
        )
    owner = [f"User={user}", f"ReadWritePaths={place}"] if user else ["DynamicUser=yes"]
    command = [_program(), "serve", str(place), *words]
    lines = [
        "[Unit]",
        f"Description=Edgewright: {title}",
        "Documentation=man:systemd.exec(5)",
        "Wants=network-online.target",
        "After=network-online.target",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        f"ExecStart={' '.join(map(_quoted, command))}",
        *owner,
        f"StateDirectory={STATE.name}",
        f"Environment=XDG_STATE_HOME={STATE} XDG_CACHE_HOME={STATE}/cache PYTHONUNBUFFERED=1",
        "Restart=always",
        "RestartSec=2",
        f"WatchdogSec={WATCHDOG_S}",
        "TimeoutStopSec=30",
        "OOMPolicy=continue",
        *_devices(needs),
        *HARDENING.splitlines(),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _program() -> str:
    """Return the command `edgewright` of this installation; through `current`, if it is a kit's."""
    folder = PurePosixPath(sys.prefix)
    current = Path(folder.parent) / "current"
    if current.is_symlink() and current.resolve() == Path(sys.prefix).resolve():
        folder = PurePosixPath(current)
    return str(folder / "bin" / "edgewright")


def _quoted(word: str) -> str:
    """Return a word as ExecStart takes it. Source: systemd.service(5), command lines, and its specifiers."""
    word = word.replace("%", "%%").replace("$", "$$")
    if word and not set(word) & set(" \t\"'\\;"):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _devices(needs: Needs) -> list[str]:
    """Return what lets the service at the site's device files: groups that own them, and the files."""
    if not needs.devices:
        return ["PrivateDevices=yes"]
    groups: dict[str, None] = {}
    allowed: dict[str, None] = {}
    for device in needs.devices:
        usual, driver = next((kind for begin, kind in KINDS.items() if device.startswith(begin)), ("", device))
        path = Path(device)
        group = group_name(path.stat().st_gid) if path.exists() and path.stat().st_gid else usual
        if group:
            groups[group] = None
        allowed[driver if set(device) & set("*?[") else device] = None
    lines = [f"SupplementaryGroups={' '.join(groups)}"] if groups else []
    return [*lines, "DevicePolicy=closed", *(f"DeviceAllow={one} rw" for one in allowed)]
