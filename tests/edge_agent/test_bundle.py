"""Bundles open whole or not at all, and the message names what is wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from devices.broker.runtime import simulated_runtime
from devices.errors import RefusedError, UsageError
from devices.simulation.world import World
from devices.site.site import SITES_FOLDER, Site, load_site
from devices.site.tools import Command
from edge_agent import bundle as layout
from edge_agent.bundle import BundleTampered, Manifest, open_bundle, verify_files
from edge_agent.wire import contract
from edge_agent.wire.chat_template import ContractChanged, load_template
from edge_agent.wire.contract import format_digest
from tests.home_with_areas import home_with_areas
from tests.tiny_bundle import make_tiny_bundle, make_tiny_gguf, rewrite_manifest
from tests.toolset import toolset_in

FILES = (*layout.REQUIRED_FILES, layout.MANIFEST)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("sound") / "tiny")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "tiny"))


def flip(path: Path, place: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def test_a_sound_bundle_opens(sound: Path) -> None:
    opened = open_bundle(sound)
    assert (opened.manifest.name, opened.manifest.site, opened.manifest.quant) == ("tiny", "home", "F16")
    assert opened.template.end_of_turn == "<|im_end|>"
    assert opened.system_text.startswith("You control a small house")
    assert opened.smoke_path is None
    assert opened.require_site(load_site("home"))


def test_a_folder_called_bundles_is_no_box(sound: Path, tmp_path: Path) -> None:
    own = tmp_path / "bundles" / "mine"
    shutil.copytree(sound, own)
    assert open_bundle(own).path == own
    (tmp_path / "current").symlink_to(own)
    with pytest.raises(BundleTampered, match="the folder is mine"):
        open_bundle(own)


def test_the_manifest_has_the_documented_form(sound: Path) -> None:
    plain = json.loads((sound / layout.MANIFEST).read_text(encoding="utf-8"))
    assert list(plain) == ["schema", "name", "site", "quant", "contract", "files", "sha256"]
    assert plain["schema"] == "bundle/v1"
    assert set(plain["files"][layout.MODEL]) == {"sha256", "bytes"}


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_in_any_file_is_named(folder: Path, name: str) -> None:
    flip(folder / name, (folder / name).stat().st_size // 2)
    with pytest.raises(BundleTampered, match=name):
        open_bundle(folder)


def test_every_flipped_byte_of_the_manifest_is_noticed(folder: Path) -> None:
    path = folder / layout.MANIFEST
    data = path.read_bytes()
    for place in range(len(data)):
        flip(path, place, bit=place % 7)
        with pytest.raises(BundleTampered, match=layout.MANIFEST):
            verify_files(folder)
        path.write_bytes(data)


def test_every_cut_of_the_manifest_is_noticed(folder: Path) -> None:
    path = folder / layout.MANIFEST
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(BundleTampered, match=layout.MANIFEST):
            verify_files(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleTampered, match=name):
        open_bundle(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_named(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    with pytest.raises(BundleTampered, match=name):
        open_bundle(folder)


def test_an_added_file_or_folder_is_named(folder: Path) -> None:
    (folder / "extra.bin").write_bytes(b"")
    with pytest.raises(BundleTampered, match=r"extra\.bin"):
        open_bundle(folder)
    (folder / "extra.bin").unlink()
    (folder / "more").mkdir()
    with pytest.raises(BundleTampered, match="more"):
        open_bundle(folder)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_a_manifest_that_is_no_plain_file_is_refused_and_not_waited_for(folder: Path, make: Any) -> None:
    (folder / layout.MANIFEST).unlink()
    make(folder / layout.MANIFEST)
    with pytest.raises(BundleTampered, match=r"manifest\.json: not a plain file"):
        open_bundle(folder)


def test_a_link_in_place_of_a_file_is_refused(folder: Path, sound: Path) -> None:
    (folder / layout.MODEL).unlink()
    (folder / layout.MODEL).symlink_to(sound / layout.MODEL)
    with pytest.raises(BundleTampered, match="plain file"):
        open_bundle(folder)


@pytest.mark.parametrize("name", ["../site.yaml", "/etc/passwd", "a/b", "..", "", "manifest.json", "a\nb"])
def test_a_manifest_cannot_list_files_elsewhere(folder: Path, name: str) -> None:
    entry = {"sha256": "0" * 64, "bytes": 1}
    manifest = open_bundle(folder).manifest
    listed = manifest.model_dump(by_alias=True)
    forged = Manifest.model_construct(**{"schema_": "bundle/v1"} | listed | {"files": listed["files"] | {name: entry}})
    plain = forged.model_dump(by_alias=True, warnings=False)
    data = json.dumps(plain | {"sha256": layout._digest_of(plain)}, indent=2) + "\n"
    (folder / layout.MANIFEST).write_text(data, encoding="utf-8")
    with pytest.raises(BundleTampered, match="cannot be a bundle's file"):
        verify_files(folder)


def test_a_template_changed_together_with_the_manifest_breaks_the_contract(folder: Path) -> None:
    path = folder / layout.TEMPLATE
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    rewrite_manifest(folder)
    with pytest.raises(ContractChanged):
        open_bundle(folder)


def test_a_site_changed_together_with_the_manifest_breaks_the_contract(folder: Path) -> None:
    path = folder / layout.SITE
    path.write_text(path.read_text(encoding="utf-8").replace("title: a small", "title: a big"), encoding="utf-8")
    rewrite_manifest(folder)
    with pytest.raises(ContractChanged):
        open_bundle(folder)


@pytest.mark.parametrize("name", [layout.SYSTEM, layout.TOOLS, layout.SAMPLING])
def test_a_part_changed_together_with_the_manifest_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes() + b".")
    rewrite_manifest(folder)
    with pytest.raises(BundleTampered, match=name):
        open_bundle(folder)


def test_a_model_of_another_contract_is_refused(folder: Path) -> None:
    template = (folder / layout.TEMPLATE).read_text(encoding="utf-8")
    make_tiny_gguf(folder / layout.MODEL, {"tokenizer.chat_template": template, "edgewright.contract": "0" * 64})
    rewrite_manifest(folder)
    with pytest.raises(ContractChanged, match=layout.MODEL):
        open_bundle(folder)


def test_a_model_with_another_template_is_refused(folder: Path) -> None:
    trained_for = open_bundle(folder).contract
    make_tiny_gguf(folder / layout.MODEL, {"tokenizer.chat_template": "x", "edgewright.contract": trained_for})
    rewrite_manifest(folder)
    with pytest.raises(BundleTampered, match="chat template"):
        open_bundle(folder)


def home_with(folder: Path, old: str, new: str) -> Site:
    """Return the shipped home with another text in its file."""
    text = (SITES_FOLDER / "home.yaml").read_text(encoding="utf-8")
    assert old in text
    (folder / "other.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")
    return load_site(folder / "other.yaml")


LAMP = "devices:\n  attic_lamp: {model: dimmable_light}\n"
SIREN = "devices:\n  attic_siren: {model: siren}\n"


def test_a_model_of_one_site_may_be_tried_where_devices_are_others_and_tools_are_not(
    sound: Path, tmp_path: Path
) -> None:
    opened = open_bundle(sound)
    assert not opened.require_site(home_with(tmp_path, "devices:\n", LAMP))
    assert not opened.require_site(home_with(tmp_path, "  kitchen_light:", "  cellar_light:"))
    assert opened.require_site(home_with(tmp_path, "kitchen lamp]", "kitchen lamp, cooking light]"))
    with pytest.raises(ContractChanged, match=r"tiny was trained for home, where there is no siren_on\(") as error:
        opened.require_site(home_with(tmp_path, "devices:\n", SIREN))
    assert "any site" in error.value.hint
    with pytest.raises(ContractChanged, match="there is no light_on"):  # with areas, tools are written in another way
        opened.require_site(home_with_areas())


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("Be brief.", "Be kind.", "the system text has changed"),
        ("Pays a customer back.", "Pays.", "description or parameters of process_refund have changed"),
        ("  find_transaction:", "  find:", "there is no find_transaction"),
        ("risk: confirm", "risk: forbidden", "process_refund is forbidden there"),
        ("tools:\n", "tools:\n  more: {parameters: {type: object}}\n", "more is new"),
    ],
)
def test_a_toolset_that_says_something_else_is_another(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = toolset_in(tmp_path)
    opened = open_bundle(make_tiny_bundle(tmp_path / "desk", site_path=path))
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("risk: confirm", "risk: low"), encoding="utf-8")
    assert opened.require_site(load_site(path))
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ContractChanged, match=f"desk was not trained for refunds: {says}"):
        opened.require_site(load_site(path))
    with pytest.raises(ContractChanged, match="one is a site and the other a toolset"):
        opened.require_site(load_site("home"))


def test_a_model_of_any_site_may_be_tried_on_all(tmp_path: Path) -> None:
    written = format_digest(load_template("chatml"))
    opened = open_bundle(make_tiny_bundle(tmp_path / "any", any_site=written))
    assert opened.manifest.any_site == written
    assert opened.require_site(load_site("home"))
    for site in (home_with_areas(), home_with(tmp_path, "devices:\n", SIREN), load_site("support")):
        assert not opened.require_site(site)
    older = open_bundle(make_tiny_bundle(tmp_path / "older", any_site="0" * 64))
    assert older.require_site(load_site("home"))
    with pytest.raises(ContractChanged, match="older was trained for another contract"):
        older.require_site(load_site("support"))


@pytest.mark.parametrize(
    ("where", "old", "new"),
    [
        ("INTRODUCTION", "Think first", "Think  first"),
        ("TOOLS_HEADING", "Tools:", "Tools: "),
        ("WIRE_FORMAT", "wire", "wires"),
    ],
)
def test_one_more_blank_in_what_all_sites_share_is_another_format(
    where: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = load_template("chatml")
    before, text = format_digest(template), getattr(contract, where)
    monkeypatch.setattr(contract, where, text.replace(old, new, 1))
    assert format_digest(template) != before


def test_a_folder_without_a_bundle_is_a_usage_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError):
            open_bundle(path)


def test_a_boxs_root_opens_its_current_bundle(folder: Path, tmp_path: Path) -> None:
    manifest_id = open_bundle(folder).manifest.id
    box = tmp_path / "box"
    (box / layout.BUNDLES).mkdir(parents=True)
    folder.rename(box / layout.BUNDLES / manifest_id)
    (box / layout.CURRENT).symlink_to(Path(layout.BUNDLES) / manifest_id)
    assert open_bundle(box).path == (box / layout.BUNDLES / manifest_id).resolve()

    (box / layout.BUNDLES / manifest_id).rename(box / layout.BUNDLES / ("0" * 12))
    with pytest.raises(UsageError, match="leads nowhere"):
        open_bundle(box)
    (box / layout.CURRENT).unlink()
    (box / layout.CURRENT).symlink_to(Path(layout.BUNDLES) / ("0" * 12))
    with pytest.raises(RefusedError, match=manifest_id):
        open_bundle(box)


@pytest.mark.parametrize(("below", "status"), [(5, "refused"), (60, "done")])
def test_a_bundles_policy_narrows_the_boxs_own(below: int, status: str, folder: Path) -> None:
    site_file = folder / layout.SITE
    text = site_file.read_text(encoding="utf-8")
    site_file.write_text(text.replace("below: 60", f"below: {below}"), encoding="utf-8")
    rewrite_manifest(folder)
    here = open_bundle(folder).narrow(load_site("home"))
    broker = simulated_runtime(World(here)).broker
    assert broker.execute(Command("garden_sprinkler", "water", {"minutes": 5})).status == status
