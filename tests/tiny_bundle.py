"""A bundle made in milliseconds, with a GGUF file that has a sound header and no working model."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from devices.durable import sha256_of
from devices.site.site import SITES_FOLDER, Site, load_site
from edge_agent import bundle
from edge_agent.bundle import MANIFEST, FileEntry, Manifest
from edge_agent.evaluation.conversations.turn_smoke import TurnSmoke
from edge_agent.evaluation.gate_limits import GateLimits
from edge_agent.evaluation.smoke import Smoke
from edge_agent.wire.chat_template import ChatTemplate, load_template
from edge_agent.wire.contract import Contract, contract_of
from export.bundle.writer import Parts, write_bundle


def make_tiny_gguf(path: Path, metadata: dict[str, str], fill: int = 0, rows: int = 3) -> Path:
    """Write a GGUF file with some keys, arrays and two tensors, one of `rows`; `fill` is the value in them."""
    import gguf
    import numpy

    writer = gguf.GGUFWriter(path, "llama")
    for key, value in metadata.items():
        writer.add_string(key, value)
    writer.add_token_list(["a", "b", "<|im_end|>"])
    writer.add_token_types([1, 1, 3])
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    writer.add_float32("llama.rope.freq_base", 10000.0)
    writer.add_tensor("token_embd.weight", numpy.full((rows, 32), fill, numpy.float16))
    writer.add_tensor("output_norm.weight", numpy.full((32,), fill, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


_SAME = {"positions": 9, "mean_kl": 0.0, "max_abs_delta": 0.0, "top1_agreement": 1.0, "top1_agreement_all": 1.0}
TINY_EXPORT = {  # what an export says of itself
    "schema": "export/v1",
    "run": {"template": "chatml", "data": {"rows": 3, "sha256": "0" * 64}},
    "base": {"path": "tiny", "sha256": {}},
    "adapter": {"sha256": {}},
    "merge_base": "original",
    "is_unmerged": False,
    "quant": "F16",
    "gguf": {"F16": {"path": "tiny.gguf", "sha256": "0" * 64, "bytes": 1000}},
    "recipe": "schema: recipe/v1\n",
    "versions": {"gguf": "0.19.0"},
    "time": "2026-01-01T00:00:00Z",
    "gates": {
        "limits": GateLimits().model_dump(),
        "texts": {"texts": 3, "tokens": 100},
        "logits": _SAME,
        "quantized": {},
        "endings": {"F16": {"ended": 3, "replies": 3}},
    },
}


def make_tiny_bundle(
    folder: Path,
    fill: int = 0,
    smoke: Smoke | TurnSmoke | None = None,
    rows: int = 3,
    any_site: str = "",
    site_path: Path = SITES_FOLDER / "home.yaml",
) -> Path:
    """Write a bundle that opens, for the site `home`; `fill` makes its model differ from another's, `rows` larger.

    `any_site` is the digest that the bundle of a model for any site has.
    """
    template = load_template("chatml")
    digest = contract_of(load_site(site_path), template).digest
    folder.parent.mkdir(parents=True, exist_ok=True)
    model = make_tiny_gguf(
        folder.parent / f"{folder.name}.gguf",
        {"tokenizer.chat_template": template.source, "edgewright.contract": digest},
        fill,
        rows,
    )
    run = TINY_EXPORT["run"] | {"any_site": any_site}
    export = TINY_EXPORT | {"name": folder.name, "contract": digest, "run": run}
    write_bundle(Parts(folder.name, "F16", model, site_path, template, smoke, export), folder)
    model.unlink()
    return folder


def parse_sites_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have sites of bundles read each time, and parsed once for the same bytes: that takes longer than all the rest."""

    @cache
    def parsed(text: bytes) -> Site:
        del text
        return load_site("home")

    @cache
    def made(template: ChatTemplate) -> Contract:
        return contract_of(load_site("home"), template)

    tools = bundle.tools_bytes(contract_of(load_site("home"), load_template("chatml")).tools)
    monkeypatch.setattr(bundle, "load_site", lambda path: parsed(path.read_bytes()))
    monkeypatch.setattr(bundle, "contract_of", lambda site, template: made(template))
    monkeypatch.setattr(bundle, "tools_bytes", lambda of: tools)


def rewrite_manifest(folder: Path, **changes: object) -> None:
    """Make the manifest fit the files again, as someone does who changes a bundle and hides it."""
    old = Manifest.model_validate_json(_without_digest(folder / MANIFEST))
    files = {
        path.name: FileEntry(sha256=sha256_of(path), bytes=path.stat().st_size)
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    new = Manifest.model_validate(old.model_dump(by_alias=True) | {"files": files} | changes)
    (folder / MANIFEST).write_bytes(new.to_bytes())


def _without_digest(path: Path) -> str:
    plain = json.loads(path.read_text(encoding="utf-8"))
    del plain["sha256"]
    return json.dumps(plain)
