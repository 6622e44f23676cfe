"""A channel with a key of its own: who has it publishes there and nowhere else, and it can be taken away."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tuf.api.metadata import DelegatedRole, Metadata, Snapshot, Targets, Timestamp

import edgewright
from devices.errors import UsageError
from export.release import repository, trust
from export.release.check import check
from export.release.keys import Keys, new_keys
from export.release.layout import METADATA, role_of
from export.release.pull import pull
from export.release.repository import delegate, init_repository, publish, renew, rotate
from export.release.sources import FolderSource
from export.release.trust import NotTrusted
from tests.export.release.test_release import World

CANARY = role_of("canary")


class Shared(World):
    """A repository whose channel `canary` has a key of its own; `testers` are who have it, and the online key."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.publish(0)
        self.publish(0, channel="canary")
        self.testers = self.keys_of("testers")
        delegate(self.repo, "canary", self.keys, self.testers)

    def keys_of(self, name: str) -> Keys:
        """Return a folder with a new key of the channel, and the online one."""
        new_keys(self.folder / name, channel="canary")
        shutil.copy(self.keys.folder / "online.pem", self.folder / name)
        return Keys(self.folder / name)


@pytest.fixture
def world(tmp_path: Path) -> Shared:
    return Shared(tmp_path)


def sequences(repo: Path) -> dict[str, int]:
    return {one.channel: one.release.sequence for one in check(repo)}


def test_a_channel_goes_on_under_its_own_key(world: Shared) -> None:
    assert sequences(world.repo) == {"canary": 1, "stable": 1}
    assert world.pull(channel="canary") == "installed" and world.has(0)
    publish(world.repo, world.bundles[1], world.testers, channel="canary")
    assert world.pull(channel="canary") == "installed" and world.has(1)
    assert world.seen()[CANARY] == 2
    world.publish(2)  # the release key goes on with stable
    assert sequences(world.repo) == {"canary": 2, "stable": 2}
    renew(world.repo, world.testers)  # the online key is enough
    assert world.pull(channel="canary") == "current"


def test_each_key_signs_its_own_channel_alone(world: Shared) -> None:
    with pytest.raises(UsageError, match=r"no key of the role targets: release\.pem"):
        publish(world.repo, world.bundles[1], world.testers)
    with pytest.raises(UsageError, match=rf"no key of the role {CANARY}: {CANARY}\.pem"):
        world.publish(1, channel="canary")
    others = world.keys_of("others")
    with pytest.raises(UsageError, match="not signed by the keys"):
        publish(world.repo, world.bundles[1], others, channel="canary")
    with pytest.raises(UsageError, match=rf"no key of the role {role_of('stable')}"):
        delegate(world.repo, "stable", world.keys, world.testers)


def test_a_delegation_with_wrong_keys_changes_nothing(world: Shared, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in (world.repo / METADATA).iterdir()}
    new_keys(tmp_path / "foreign")
    for keys in (Keys(tmp_path / "foreign"), world.testers):
        for channel in ("canary", "stable"):
            own = world.keys_of(f"{channel}-{keys.folder.name}") if channel == "canary" else world.keys
            with pytest.raises(UsageError):
                delegate(world.repo, channel, keys, own)
    assert {path: path.read_bytes() for path in (world.repo / METADATA).iterdir()} == before


def as_newest(world: World, role: str, content: Targets, keys: Keys, step: int = 1) -> None:
    """Write what a role says as whoever has its key and the online one can, with versions that are higher by a step."""
    content.version += step
    metadata = Metadata(content)
    for signer in keys.signers(role):
        metadata.sign(signer, append=True)
    repository._save(world.repo, metadata, role)
    snapshot, timestamp = (repository._latest(world.repo, kind).signed for kind in (Snapshot, Timestamp))
    snapshot.meta[f"{role}.json"].version = content.version
    snapshot.version += step
    timestamp.version += step
    repository._write(world.repo, repository._next(snapshot), keys)
    timestamp.snapshot_meta.version = snapshot.version
    repository._write(world.repo, repository._next(timestamp), keys)


def test_what_a_channels_key_says_of_another_channel_counts_nothing(world: Shared) -> None:
    world.pull()
    publish(world.repo, world.bundles[1], world.testers, channel="canary")
    content = repository._latest(world.repo, Targets, CANARY).signed
    content.targets["stable/manifest.json"] = content.targets["canary/manifest.json"]
    content.targets["stable/manifest.json"].path = "stable/manifest.json"
    as_newest(world, CANARY, content, world.testers)
    assert world.pull() == "current" and world.has(0)
    targets = repository._latest(world.repo, Targets).signed  # nor where stable has no release yet
    del targets.targets["stable/manifest.json"]
    repository._write(world.repo, repository._next(targets), world.keys)
    renew(world.repo, world.keys)
    with pytest.raises(UsageError, match="has no channel stable"):
        world.pull()


def test_another_key_says_it_is_of_the_channel(world: Shared) -> None:
    world.pull(channel="canary")
    publish(world.repo, world.bundles[1], world.testers, channel="canary")
    whole = world.copy("whole")
    as_newest(world, CANARY, repository._latest(world.repo, Targets, CANARY).signed, world.keys_of("thief"))
    with pytest.raises(NotTrusted):
        world.pull(channel="canary")
    assert world.has(0)
    shutil.rmtree(world.repo)
    whole.rename(world.repo)
    renew(world.repo, world.keys)  # the online key was true, and the box has seen the versions that it signed
    publish(world.repo, world.bundles[1], world.testers, channel="canary")
    assert world.pull(channel="canary") == "installed"


@pytest.mark.parametrize("is_cached", [True, False])
def test_an_older_release_of_the_channel_is_refused(world: Shared, is_cached: bool) -> None:
    older = world.copy("older")
    publish(world.repo, world.bundles[1], world.testers, channel="canary")
    world.pull(channel="canary")
    if not is_cached:
        shutil.rmtree(world.box / trust.TRUST / METADATA)
    with pytest.raises(NotTrusted):
        pull(world.box, FolderSource(older), "canary")
    content = repository._latest(older, Targets, CANARY).signed  # the online key alone, with an old file of the channel
    shutil.copy(older / METADATA / f"{content.version}.{CANARY}.json", world.repo / METADATA / f"2.{CANARY}.json")
    renew(world.repo, world.keys)
    with pytest.raises(NotTrusted):
        world.pull(channel="canary")
    assert world.has(1)


def test_what_a_channels_publisher_has_is_stolen_and_taken_away(world: Shared, tmp_path: Path) -> None:
    world.pull(channel="canary")
    honest = world.copy("honest")
    content = repository._latest(world.repo, Targets, CANARY).signed
    content.targets["canary/manifest.json"].unrecognized_fields["custom"]["sequence"] = 1_000_000
    as_newest(world, CANARY, content, world.testers, step=1_000_000)
    assert world.pull(channel="canary") == "current"  # all that the thief signs is as new as can be
    shutil.rmtree(world.repo)
    honest.rename(world.repo)
    with pytest.raises(NotTrusted):
        world.pull(channel="canary")
    shutil.copytree(world.keys.folder, tmp_path / "new")
    new_keys(tmp_path / "others")
    shutil.copy(tmp_path / "others" / "online.pem", tmp_path / "new")
    rotate(world.repo, world.keys, Keys(tmp_path / "new"))  # the online key that lay beside it
    own = world.keys_of("own")
    shutil.copy(tmp_path / "new" / "online.pem", own.folder)
    delegate(world.repo, "canary", Keys(tmp_path / "new"), own)
    with pytest.raises(UsageError, match="not signed by the keys"):
        publish(world.repo, world.bundles[1], world.testers, channel="canary")
    publish(world.repo, world.bundles[1], own, channel="canary")
    assert world.pull(channel="canary") == "installed" and world.has(1)
    assert json.loads((world.box / trust.TRUST / trust.FLOOR).read_bytes())["sequences"]["canary"] == 2


def test_roles_of_other_tools_are_passed_over(world: Shared) -> None:
    targets = repository._latest(world.repo, Targets).signed
    targets.delegations.roles["some tool's"] = DelegatedRole("some tool's", [], 1, False, paths=["other/*"])
    targets.add_key(world.testers.signers(CANARY)[0].public_key, "some tool's")
    repository._write(world.repo, repository._next(targets), world.keys)
    renew(world.repo, world.keys)
    assert world.pull() == "installed"
    assert sequences(world.repo) == {"canary": 1, "stable": 1}


def test_a_channel_stays_what_it_is_under_new_root_keys(world: Shared, tmp_path: Path) -> None:
    world.pull(channel="canary")
    world.pull()
    new_keys(tmp_path / "new")
    rotate(world.repo, world.keys, Keys(tmp_path / "new"))
    shutil.copy(tmp_path / "new" / "online.pem", world.testers.folder)
    publish(world.repo, world.bundles[1], world.testers, channel="canary")
    assert world.pull(channel="canary") == "installed" and world.has(1)
    assert sequences(world.repo) == {"canary": 2, "stable": 1}


def test_a_channel_may_begin_with_its_own_key_and_one_key_may_be_for_all(world: Shared, tmp_path: Path) -> None:
    new_keys(tmp_path / "dev", is_development=True)
    keys, repo, box = Keys(tmp_path / "dev"), tmp_path / "trying", tmp_path / "box2"
    trust.trust(box, init_repository(repo, keys))
    delegate(repo, "yard", keys, keys)
    assert check(repo) == []
    publish(repo, world.bundles[0], keys, channel="yard")
    assert pull(box, FolderSource(repo), "yard").state == "installed"


def test_the_commands(world: Shared, capsys: pytest.CaptureFixture[str]) -> None:
    own, keys = str(world.folder / "own"), str(world.keys.folder)
    assert edgewright.main(["keys", "new", own, "--channel", "stable"]) == 0
    assert edgewright.main(["repo", "delegate", str(world.repo), "stable", "--keys", keys, "--channel-keys", own]) == 0
    assert edgewright.main(["repo", "publish", str(world.repo), str(world.bundles[0]), "--keys", keys]) == 2
    assert f"{role_of('stable')}.pem" in capsys.readouterr().err
    shutil.copy(world.keys.folder / "online.pem", own)
    assert edgewright.main(["repo", "publish", str(world.repo), str(world.bundles[0]), "--keys", own]) == 0
    assert edgewright.main(["keys", "new", str(world.folder / "x"), "--channel", "No"]) == 2
