"""Signed releases: published, pulled from a folder and a web server, and every way to slip something in."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import edgewright
from devices.errors import EdgeError, GateError, RefusedError, UnavailableError, UsageError
from edge_agent.bundle import CURRENT, MODEL, open_bundle
from export.flash.flash import STAGING
from export.release import keys as keys_module
from export.release import repository, trust
from export.release.check import check
from export.release.keys import PASSPHRASE, Keys, new_keys
from export.release.layout import BLOBS, METADATA, TARGETS
from export.release.pull import pull
from export.release.repository import init_repository, publish, renew, rotate
from export.release.sources import FolderSource, open_source
from export.release.trust import NotTrusted, fetch_release, is_in_wave
from tests.tiny_bundle import make_tiny_bundle


class World:
    """A publisher with three bundles, a repository, and a box that trusts it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.repo, self.box = folder, folder / "repo", folder / "box"
        self.bundles = [make_tiny_bundle(folder / f"bundle{fill}", fill) for fill in range(3)]
        new_keys(folder / "keys")
        self.keys = Keys(folder / "keys")
        self.root = init_repository(self.repo, self.keys)
        assert trust.trust(self.box, self.root) is False

    def publish(self, number: int, **options: Any) -> None:
        publish(self.repo, self.bundles[number], self.keys, **options)

    def pull(self, **options: Any) -> str:
        return pull(self.box, FolderSource(self.repo), **options).state

    def has(self, number: int) -> bool:
        return open_bundle(self.box).manifest == open_bundle(self.bundles[number]).manifest

    def seen(self, box: Path | None = None) -> dict[str, int]:
        """Return the highest version that a box has seen of each role."""
        floor = (box or self.box) / trust.TRUST / trust.FLOOR
        return json.loads(floor.read_bytes())["versions"] if floor.exists() else {}

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.repo, self.folder / name))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_box_follows_its_channel_and_the_operator_back(world: World) -> None:
    world.publish(0)
    assert world.pull(dry_run=True) == "to install" and not (world.box / CURRENT).exists()
    assert (world.pull(), world.pull()) == ("installed", "current") and world.has(0)
    world.publish(1)
    assert world.pull() == "installed" and world.has(1) and not (world.box / STAGING).exists()
    world.publish(0)  # back, as a new release
    report = pull(world.box, FolderSource(world.repo))
    assert (report.release, report.state) == (3, "installed") and world.has(0)
    blobs = {entry.sha256 for one in world.bundles[:2] for entry in open_bundle(one).manifest.files.values()}
    assert {path.name for path in (world.repo / TARGETS / BLOBS).iterdir()} == blobs
    world.publish(2, channel="canary")
    assert world.pull() == "current" and world.pull(channel="canary") == "installed" and world.has(2)
    assert [(one.channel, one.release.sequence) for one in check(world.repo)] == [("canary", 1), ("stable", 3)]


class _Cut(SimpleHTTPRequestHandler):
    """A web server without ranges that ends each file after a number of bytes, if `limit` has one."""

    limit: int | None = None

    def log_message(self, *_: object) -> None:
        pass

    def copyfile(self, source: Any, outputfile: Any) -> None:
        outputfile.write(source.read(self.limit) if BLOBS in self.path and self.limit else source.read())


@contextmanager
def served(repo: Path, limit: int | None = None) -> Iterator[str]:
    handler = type("Handler", (_Cut,), {"limit": limit})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(repo)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_over_http_what_came_is_kept(world: World) -> None:
    world.publish(0)
    with (
        served(world.repo, limit=3000) as url,
        pytest.raises(UnavailableError, match=r"IncompleteRead|ends"),
    ):
        pull(world.box, open_source(url))
    kept = {path.name: path.stat().st_size for path in (world.box / STAGING).rglob("*.part")}
    assert kept and not (world.box / CURRENT).exists()
    with served(world.repo) as url:
        assert pull(world.box, open_source(url)).state == "installed" and world.has(0)
    with pytest.raises(UnavailableError):
        pull(world.box, open_source(url))
    assert world.has(0)


def metadata(repo: Path, role: str) -> Path:
    found = [path for path in (repo / METADATA).iterdir() if path.name.endswith(f"{role}.json")]
    return max(found, key=lambda path: int(path.name.split(".")[0]) if path.name[0].isdigit() else 0)


def change(path: Path, new: Callable[[bytes], bytes]) -> None:
    path.write_bytes(new(path.read_bytes()))


def flipped(data: bytes) -> bytes:
    """Return data with one bit changed, in JSON in the name of a key that counts."""
    at = data.find(b'"version"') + 2 if b'"version"' in data else len(data) - 1
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def saying(repo: Path, role: str, **told: Any) -> None:
    """Change what a role says, without its key."""
    path = metadata(repo, role)
    plain = json.loads(path.read_bytes())
    plain["signed"] |= told
    path.write_bytes(json.dumps(plain).encode())


def releasing(repo: Path, **told: Any) -> None:
    """Change what is said of the release, without the key."""
    targets = json.loads(metadata(repo, "targets").read_bytes())["signed"]["targets"]
    targets["stable/manifest.json"]["custom"] |= told
    saying(repo, "targets", targets=targets)


def by_others(repo: Path, role: str = "") -> None:
    """Have other keys publish: one role, or all but the root, which the box has."""
    other = repo.parent / "others"
    new_keys(other / "keys")
    init_repository(other / "repo", Keys(other / "keys"))
    publish(other / "repo", repo.parent / "bundle2", Keys(other / "keys"))
    for one in (role,) if role else ("timestamp", "snapshot", "targets"):
        shutil.copy(metadata(other / "repo", one), metadata(repo, one))


def older(repo: Path, role: str) -> None:
    """Put an older version in the place of the newest."""
    path = metadata(repo, role)
    shutil.copy(path.with_name(f"1.{role}.json"), path)


def second_root(repo: Path) -> None:
    """Add a root of other keys as the next version."""
    new_keys(repo.parent / "root2")
    root = init_repository(repo.parent / "repo2", Keys(repo.parent / "root2"))
    (repo / METADATA / "2.root.json").write_bytes(root.read_bytes().replace(b'"version": 1', b'"version": 2'))


def each(folder: str, new: Callable[[bytes], bytes], repo: Path) -> None:
    for path in (repo / TARGETS / folder).iterdir():
        change(path, new)


OF_A_ROLE: dict[str, Callable[[Path, str], object]] = {
    "a bit": lambda repo, role: change(metadata(repo, role), flipped),
    "cut": lambda repo, role: change(metadata(repo, role), lambda data: data[:-40]),
    "empty": lambda repo, role: change(metadata(repo, role), lambda data: b""),
    "gone": lambda repo, role: metadata(repo, role).unlink(),
    "endless": lambda repo, role: change(metadata(repo, role), lambda data: b" " * 6_000_000),
    "by others": by_others,
    "another version": lambda repo, role: saying(repo, role, version=99),
    "a longer life": lambda repo, role: saying(repo, role, expires="2099-01-01T00:00:00Z"),
    "another type": lambda repo, role: saying(repo, role, _type="root"),
}
ATTACKS: dict[str, Callable[[Path], object]] = (
    {
        f"{role}: {name}": partial(attack, role=role)  # type: ignore[call-arg]
        for role in ("timestamp", "snapshot", "targets")
        for name, attack in OF_A_ROLE.items()
    }
    | {
        "all by others": by_others,
        "snapshot: an older one": partial(older, role="snapshot"),
        "targets: an older one": partial(older, role="targets"),
        "targets: another bundle": partial(releasing, bundle="0" * 64),
        "targets: a later sequence": partial(releasing, sequence=99),
        "targets: more boxes": partial(releasing, percent=99),
        "root: a second one of others": second_root,
        "manifest: a bit": partial(each, "stable", flipped),
        "manifest: gone": lambda repo: shutil.rmtree(repo / TARGETS / "stable"),
        "blobs: a bit": partial(each, BLOBS, flipped),
        "blobs: cut": partial(each, BLOBS, lambda data: data[:-1]),
        "blobs: longer, and others": partial(each, BLOBS, lambda data: b"x" + data),
        "blobs: gone": lambda repo: shutil.rmtree(repo / TARGETS / BLOBS),
    }
)


@pytest.mark.parametrize("is_cached", [True, False])
@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_not_as_it_was_signed_is_not_installed(world: World, name: str, is_cached: bool) -> None:
    world.publish(0)
    world.pull()
    world.publish(1)
    if not is_cached:
        shutil.rmtree(world.box / trust.TRUST / METADATA)
    before = sorted((world.box / "bundles").iterdir())
    whole = world.copy("whole")
    ATTACKS[name](world.repo)
    with pytest.raises((NotTrusted, UnavailableError)):
        world.pull()
    assert world.has(0) and sorted((world.box / "bundles").iterdir()) == before
    assert pull(world.box, FolderSource(whole)).state == "installed" and world.has(1)  # no harm was done to the box


@pytest.mark.parametrize("is_cached", [True, False])
def test_an_older_copy_of_the_repository_is_refused(world: World, is_cached: bool) -> None:
    world.publish(0)
    older = world.copy("older")
    world.publish(1)
    world.pull()
    if not is_cached:  # python-tuf alone would take it then
        shutil.rmtree(world.box / trust.TRUST / METADATA)
    with pytest.raises(NotTrusted):
        pull(world.box, FolderSource(older))
    assert world.has(1) and world.pull() == "current"


def test_what_was_only_seen_is_a_floor_too(world: World) -> None:
    world.publish(0)
    older = world.copy("older")
    world.publish(1, percent=0)
    assert world.pull() == "waiting"
    with pytest.raises(NotTrusted):
        pull(world.box, FolderSource(older))
    (world.box / trust.TRUST / trust.FLOOR).write_text("{")
    with pytest.raises(RefusedError, match="is damaged"):
        world.pull()


def test_an_expired_repository_is_refused_until_it_is_renewed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish(0)
    monkeypatch.setitem(repository.LIFE, "timestamp", -1)
    renew(world.repo, world.keys)
    with pytest.raises(NotTrusted, match="expired") as error:
        world.pull()
    assert "clock" in error.value.hint
    monkeypatch.undo()
    (world.folder / "keys" / "release.pem").unlink()  # the online key is enough
    renew(world.repo, world.keys)
    assert world.pull() == "installed"


@pytest.mark.parametrize(
    ("kind", "needed"), [("targets", "repo renew` with release.pem"), ("root", "repo rotate` with two root keys")]
)
def test_what_lives_longer_is_named_before_it_expires(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str, needed: str
) -> None:
    monkeypatch.setitem(repository.LIFE, kind, 10)  # its last days
    shutil.rmtree(world.repo)
    init_repository(world.repo, world.keys)
    shutil.rmtree(world.box / trust.TRUST)
    trust.trust(world.box, world.repo / METADATA / "1.root.json")
    world.publish(0)
    monkeypatch.undo()
    away = world.folder / "keys" / "release.pem"
    away.rename(world.folder / "release.pem")
    assert needed in renew(world.repo, world.keys).renewal
    (world.folder / "release.pem").rename(away)
    renewal = renew(world.repo, world.keys).renewal
    assert ("online.pem" in renewal) is (kind == "targets")
    if kind == "root":
        rotate(world.repo, world.keys, world.keys)
        assert "online.pem" in repository.expiry(world.repo).renewal
    assert world.pull() == "installed"


def test_metadata_that_readers_would_read_differently_is_refused(world: World) -> None:
    world.publish(0)
    path = world.repo / METADATA / "timestamp.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"version":', b'"version": 9, "version":', 1))
    with pytest.raises(NotTrusted, match="the key 'version' stands there twice"):
        world.pull()
    path.write_bytes(whole)
    assert world.pull() == "installed"


def test_a_bundle_that_fails_its_self_test_leaves_the_old_one(world: World) -> None:
    world.publish(0)
    world.pull()
    world.publish(1)

    def fail(_: object) -> str:
        raise GateError("it says garbage")

    with pytest.raises(GateError):
        world.pull(selftest=fail)
    assert world.has(0)
    world.publish(0)
    assert world.pull(selftest=fail) == "current"


def test_waves_reach_their_share_and_then_all(world: World) -> None:
    world.publish(0, percent=30)
    trusted = fetch_release(world.box, FolderSource(world.repo), "stable")
    reached = 0
    for number in range(400):
        (world.box / trust.TRUST / trust.BOX_ID).write_text(str(number))
        reached += is_in_wave(world.box, trusted)
    assert 80 < reached < 160
    world.publish(0)
    assert world.pull() == "installed"


def test_keys(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "keys").iterdir())
    with pytest.raises(UsageError, match="is there already"):
        new_keys(tmp_path / "keys")
    new_keys(tmp_path / "others")
    with pytest.raises(UsageError, match="not signed by the keys of its root"):
        publish(world.repo, world.bundles[0], Keys(tmp_path / "others"))
    with pytest.raises(UsageError, match=r"no key of the role targets: release\.pem"):
        publish(world.repo, world.bundles[0], Keys(tmp_path / "none"))
    monkeypatch.setenv(PASSPHRASE, "open sesame")
    new_keys(tmp_path / "closed")
    init_repository(tmp_path / "closed_repo", Keys(tmp_path / "closed"))
    monkeypatch.delenv(PASSPHRASE)
    with pytest.raises(UsageError) as error:
        renew(tmp_path / "closed_repo", Keys(tmp_path / "closed"))
    assert PASSPHRASE in error.value.hint
    (tmp_path / "others" / f"{keys_module.ONLINE}.pem").write_text("no key")
    with pytest.raises(UsageError, match="cannot be read as a key"):
        renew(world.repo, Keys(tmp_path / "others"))


def test_two_of_three_root_keys_are_needed_and_do(tmp_path: Path) -> None:
    new_keys(tmp_path / "keys")
    (tmp_path / "keys" / "root-1.pem").unlink()
    root = init_repository(tmp_path / "two", Keys(tmp_path / "keys"))
    trust.trust(tmp_path / "box", root)
    (tmp_path / "keys" / "root-2.pem").unlink()
    with pytest.raises(UsageError, match="not signed by the keys"):
        init_repository(tmp_path / "one", Keys(tmp_path / "keys"))


def test_boxes_follow_to_a_root_of_other_keys(world: World, tmp_path: Path) -> None:
    world.publish(0)
    assert world.pull() == "installed"
    before = world.copy("before")
    new_keys(tmp_path / "new")
    new = Keys(tmp_path / "new")
    for name in ("root-1", "root-2"):  # the third is enough for nothing
        (tmp_path / "keys" / f"{name}.pem").rename(tmp_path / f"{name}.pem")
    with pytest.raises(UsageError, match="not signed by the keys"):
        rotate(world.repo, world.keys, new)
    assert check(world.repo) == check(before)
    for name in ("root-1", "root-2"):
        (tmp_path / f"{name}.pem").rename(tmp_path / "keys" / f"{name}.pem")
    shutil.copy(tmp_path / "keys" / "root-1.pem", tmp_path / "new" / "root-1.pem")  # one of the old ones stays
    assert rotate(world.repo, world.keys, new).name == "2.root.json"
    with pytest.raises(UsageError, match="not signed by the keys"):
        world.publish(1)  # by keys that are gone
    publish(world.repo, world.bundles[1], new)
    assert world.pull() == "installed" and world.has(1)
    with pytest.raises(NotTrusted):
        pull(world.box, FolderSource(before))
    late = tmp_path / "late"  # a box that was given the first root, and was off all the time
    trust.trust(late, world.root)
    assert pull(late, FolderSource(world.repo)).state == "installed"
    assert check(world.repo)[0].release.sequence == 2


def test_a_thief_of_the_online_key_cannot_keep_boxes_from_the_next_root(world: World, tmp_path: Path) -> None:
    world.publish(0)
    honest = world.copy("honest")
    for role in (repository.Snapshot, repository.Timestamp):  # the thief signs what is as new as can be
        found = repository._latest(world.repo, role)
        found.signed.version = 1_000_000
        if role is repository.Timestamp:
            found.signed.snapshot_meta.version = 1_000_000
        repository._write(world.repo, found.signed, world.keys)
    assert world.pull() == "installed"
    shutil.rmtree(world.repo)
    honest.rename(world.repo)
    with pytest.raises(NotTrusted):
        world.pull()
    new_keys(tmp_path / "new")
    rotate(world.repo, world.keys, Keys(tmp_path / "new"))
    publish(world.repo, world.bundles[1], Keys(tmp_path / "new"))
    assert world.pull() == "installed" and world.has(1)


def test_what_others_have_put_into_the_folder_is_not_signed_again(world: World, tmp_path: Path) -> None:
    world.publish(0)
    new_keys(tmp_path / "foreign")
    foreign = Keys(tmp_path / "foreign")
    other = tmp_path / "other"
    init_repository(other, foreign)
    publish(other, world.bundles[1], foreign)
    shutil.copy(other / METADATA / "2.targets.json", world.repo / METADATA / "99.targets.json")
    for act in (lambda: rotate(world.repo, world.keys, foreign), lambda: renew(world.repo, world.keys),
                lambda: world.publish(2)):  # fmt: skip
        with pytest.raises(UsageError, match="newest targets is not signed"):
            act()
    new_keys(tmp_path / "dev", is_development=True)
    with pytest.raises(UsageError, match="development key"):
        rotate(world.repo, world.keys, Keys(tmp_path / "dev"))


def test_a_root_gets_a_new_life_by_its_own_keys(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish(0)
    monkeypatch.setitem(repository.LIFE, "root", 3000)
    path = rotate(world.repo, world.keys, world.keys)
    expires = [json.loads(one.read_bytes())["signed"]["expires"] for one in (world.root, path)]
    assert expires[0] < expires[1] and world.pull() == "installed"


def test_a_rotation_that_was_cut_short_is_finished_by_a_renewal(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish(0)
    world.pull()
    new_keys(tmp_path / "new")
    save, new = repository._save, Keys(tmp_path / "new")

    def until_timestamp(folder: Path, metadata: Any) -> Path:
        if metadata.signed.type == "timestamp":
            raise KeyboardInterrupt
        return save(folder, metadata)

    monkeypatch.setattr(repository, "_save", until_timestamp)
    with pytest.raises(KeyboardInterrupt):
        rotate(world.repo, world.keys, new)
    monkeypatch.undo()
    with pytest.raises(NotTrusted):
        world.pull()
    assert world.has(0)
    renew(world.repo, new)
    assert world.pull() == "current"


def test_a_repository_that_cannot_be_written_is_said_in_one_line(world: World) -> None:
    shutil.rmtree(world.repo / "targets")
    (world.repo / "targets").write_text("no folder")
    with pytest.raises(UnavailableError, match="cannot write to"):
        world.publish(0)


def test_what_is_no_repository_root_or_channel(world: World, tmp_path: Path) -> None:
    for wrong, message in (
        (lambda: open_source(str(tmp_path / "none")), "is no folder"),
        (lambda: open_source(str(tmp_path)), "is no repository"),
        (lambda: renew(tmp_path, world.keys), "is no repository"),
        (lambda: init_repository(tmp_path, world.keys), "is not empty"),
        (lambda: world.publish(0, channel="Stable"), "is no channel"),
        (lambda: world.pull(channel="blobs"), "is no channel"),
        (lambda: world.pull(), "has no channel stable"),
        (lambda: trust.trust(tmp_path / "b", tmp_path / "none"), "is no root"),
        (lambda: pull(tmp_path / "new", FolderSource(world.repo)), "trusts nobody yet"),
    ):
        with pytest.raises(UsageError, match=message):
            wrong()
    new_keys(tmp_path / "dev", is_development=True)
    other = init_repository(tmp_path / "other", Keys(tmp_path / "dev"))
    with pytest.raises(RefusedError, match="trusts another root"):
        trust.trust(world.box, other)
    assert trust.trust(tmp_path / "trying", other) is True
    world.publish(0)
    next((world.repo / TARGETS / BLOBS).iterdir()).unlink()
    with pytest.raises(GateError, match="missing or damaged"):
        check(world.repo)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, keys, repo, box = (str(tmp_path / name) for name in ("bundle", "keys", "repo", "box"))
    make_tiny_bundle(Path(bundle))
    for words in (
        ["keys", "new", keys, "--development"],
        ["repo", "init", repo, "--keys", keys],
        ["repo", "publish", repo, bundle, "--keys", keys, "--percent", "100"],
        ["repo", "check", repo],
        ["repo", "renew", repo, "--keys", keys],
        ["box", "trust", box, f"{repo}/metadata/1.root.json"],
        ["box", "pull", box, "--from", repo, "--no-selftest"],
    ):
        assert edgewright.main(words) == 0, capsys.readouterr()
    said = capsys.readouterr()
    assert "release 1 of stable" in said.out and "one development key signs all" in said.err
    assert edgewright.main(["box", "pull", box, "--from", repo, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "current"
    assert (tmp_path / "box" / CURRENT / MODEL).is_file()
    assert issubclass(NotTrusted, EdgeError)
