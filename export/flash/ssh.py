"""Flash a box over OpenSSH's client: send what the box lacks, and have Edgewright there do the rest.

The box needs an SSH server and Edgewright (the kit of `edgewright box build`), and the workstation a key that it takes
without a password. Nothing listens beside SSH. What was sent stays when the network breaks: run it again.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from devices.errors import EdgeError, GateError, RefusedError, UnavailableError, UsageError
from edge_agent.bundle import MANIFEST, hold_bundle
from edge_agent.progress import ByteProgressBar, Progress, no_progress_bar
from export.flash.flash import CHUNK_BYTES
from export.flash.receive import PART

SCHEME = "ssh://"
NOT_FOUND, SSH_FAILED = 127, 255  # exit codes of a shell without the program, and of ssh itself
ROUNDS = 3  # of sending what is missing
ERRORS: dict[int, type[EdgeError]] = {
    one.exit_code: one for one in (UsageError, UnavailableError, RefusedError, GateError)
}


@dataclass(frozen=True)
class Remote:
    """A box's root on another machine.

    Attributes:
        host: as ssh takes it, `user@name` or an alias of ~/.ssh/config.
        port: None for ssh's own choice.
        path: of the box's root there; one without / in front is in the user's home folder.
        command: what runs Edgewright there, found as a login shell finds it.
        options: more options for ssh.
    """

    host: str
    port: int | None
    path: str
    command: str = "edgewright"
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, url: str, command: str, options: Sequence[str] = ()) -> Remote:
        """Return what `ssh://[user@]host[:port]/path` names; `/~/path` is in the home folder.

        Raises:
            UsageError: it is no such address.
        """
        hint = "as in ssh://pi@controller.local/home/pi/box"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"{url}: {error}", hint=hint) from error
        path = unquote(parts.path).removeprefix("/~/")
        if not parts.hostname or path.strip("/") == "" or parts.query or parts.fragment or parts.password:
            raise UsageError(f"{url} is no box's address", hint=hint)
        host = f"{parts.username}@{parts.hostname}" if parts.username else parts.hostname
        if host.startswith("-"):
            raise UsageError(f"{host} is no host", hint=hint)
        return cls(host, port, path, command, tuple(options))

    def __str__(self) -> str:
        return f"{self.host}:{self.path}"


class Connection:
    """Runs commands on another machine, over one connection that is kept for all."""

    def __init__(self, remote: Remote, control: Path) -> None:
        self._remote = remote
        port = ["-p", str(remote.port)] if remote.port else []
        shared = ["-o", "ControlMaster=auto", "-o", f"ControlPath={control}", "-o", "ControlPersist=60"]
        self._ssh = ["ssh", "-o", "BatchMode=yes", *shared, *remote.options, *port, remote.host]

    def edgewright(self, arguments: Sequence[str], given: bytes = b"") -> dict[str, Any]:
        """Run Edgewright there and return its JSON. What it says on stderr is shown; raises what it failed with."""
        start = f'exec {self._remote.command} "$@"'
        line = shlex.join(["sh", "-lc", start, "sh", *arguments, "--json"])
        done = subprocess.run([*self._ssh, line], input=given, capture_output=True, check=False)
        said = done.stderr.decode(errors="replace").strip().splitlines()
        if done.returncode:
            raise self._failure(done.returncode, said)
        try:
            answer = json.loads(done.stdout)
        except ValueError as error:
            what = f"{self._remote.host} answered something else: {done.stdout[:80]!r}"
            hint = "does a login there print something? is Edgewright there as new as here?"
            raise UnavailableError(what, hint=hint) from error
        return dict(answer) | {"said": said}

    def append(self, source: Path, offset: int, path: str, progress: Progress) -> None:
        """Send a file from an offset on, to the end of a file there. Raises UnavailableError if the network breaks."""
        with source.open("rb") as file:
            file.seek(offset)
            with subprocess.Popen(
                [*self._ssh, f"cat >> {shlex.quote(path)}"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
            ) as sending:
                assert sending.stdin is not None and sending.stderr is not None
                try:
                    while chunk := file.read(CHUNK_BYTES):
                        sending.stdin.write(chunk)
                        sending.stdin.flush()
                        progress(len(chunk))
                    sending.stdin.close()
                except BrokenPipeError:
                    pass  # its exit code says why
                said = sending.stderr.read().decode(errors="replace").strip().splitlines()
        if sending.returncode:
            raise self._failure(sending.returncode, said)

    def close(self) -> None:
        """End the connection."""
        subprocess.run([*self._ssh[:-1], "-O", "exit", self._remote.host], capture_output=True, check=False)

    def _failure(self, code: int, said: Sequence[str]) -> EdgeError:
        last = next((line for line in reversed(said) if line.strip()), "")
        if code == SSH_FAILED:
            hint = "what was sent stays there: run it again; `ssh-copy-id` brings your key there"
            return UnavailableError(f"ssh {self._remote.host}: {last or 'failed'}", hint=hint)
        if code == NOT_FOUND:
            hint = "install the kit there (`edgewright box build`), or say where it is with --on-box"
            return UsageError(f"{self._remote.host} has no {self._remote.command}", hint=hint)
        return ERRORS.get(code, EdgeError)(f"on {self._remote.host}: {last.removeprefix('error: ')}")


@contextmanager
def connected(remote: Remote) -> Iterator[Connection]:
    """Connect to a box. Raises UsageError if this machine has no ssh."""
    if shutil.which("ssh") is None:
        raise UsageError("this machine has no ssh", hint="install OpenSSH's client")
    with tempfile.TemporaryDirectory(prefix="ew-") as folder:  # short: a socket's path has 104 bytes
        connection = Connection(remote, Path(folder) / "ssh")
        try:
            yield connection
        finally:
            connection.close()


def flash_over_ssh(
    bundle: Path,
    remote: Remote,
    flags: Sequence[str] = (),
    *,
    dry_run: bool = False,
    progress_bar: ByteProgressBar = no_progress_bar,
) -> dict[str, Any]:
    """Send a bundle to a box and flash it there.

    Args:
        bundle: its folder.
        remote: the box.
        flags: for `edgewright flash` on the box.
        dry_run: only say what would be sent.
        progress_bar: opens a progress bar for what is sent.

    Returns:
        What `edgewright flash --json` says on the box; `said` are its lines for people.

    Raises:
        BundleTampered, UsageError: the bundle is none.
        UnavailableError: the box cannot be reached, or the network broke.
        EdgeError: what failed on the box, with the exit code there.
    """
    with hold_bundle(bundle) as held, connected(remote) as connection:
        manifest = (held.path / MANIFEST).read_bytes()
        arguments = ["box", "receive", remote.path, *(["--dry-run"] if dry_run else [])]
        for _ in range(ROUNDS):
            there = connection.edgewright(arguments, manifest)
            if dry_run:
                steps = [f"send {there['missing_bytes'] / 1e6:.1f} MB to {remote}", "flash it there"]
                return {"id": held.manifest.id, "steps": steps, "said": [], "copied_bytes": there["missing_bytes"]}
            if not there["missing"]:
                break
            with progress_bar(f"sending to {remote.host}", there["missing_bytes"]) as progress:
                for name, offset in there["missing"].items():
                    connection.append(held.path / name, offset, f"{there['folder']}/{name}{PART}", progress)
        else:
            raise UnavailableError(
                f"what arrived at {remote.host} is not what was sent", hint="run it again; is its disk sound?"
            )
        report = connection.edgewright(["flash", there["folder"], remote.path, *flags])
        connection.edgewright(["box", "receive", remote.path, "--clear"])
        return report


def rollback_over_ssh(remote: Remote, *, dry_run: bool = False) -> dict[str, Any]:
    """Have a box go back to its previous bundle; raises as `flash_over_ssh`."""
    with connected(remote) as connection:
        return connection.edgewright(["flash", "--rollback", remote.path, *(["--dry-run"] if dry_run else [])])
