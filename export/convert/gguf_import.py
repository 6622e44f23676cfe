"""A GGUF file as a base model's folder, as transformers saves one: what gguf_writer.py does, backwards.

Quantized weights are dequantized and written in bfloat16, some rows at a time, so that memory stays small. They are
those of the file: what its quantization lost does not come back. Its tokens are compared with llama.cpp's before the
folder gets its name.

Does not guard against: weights that are wrong in the file itself.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.durable import sha256_of
from devices.errors import UsageError
from edge_agent.engine.gguf_header import GgufHeader, require_gguf
from edge_agent.progress import ByteProgressBar, no_progress_bar
from export import architectures as layout
from export.architectures import FAMILIES, Shape
from export.convert.gguf_writer import BLOCK_WEIGHTS
from export.convert.tokenizer_import import tokenizer_json
from export.rope import FULL, WINDOWED

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor
    from torch import Tensor

_PARTS_OF_ROPE = {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}
# Source: config.json of Llama 3.1 and 3.2; the factor differs, and is the largest of rope_freqs.weight.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_PRECISION = 1e-3  # of RoPE factors, which were float32


@dataclass(frozen=True)
class Imported:
    """What was made: the folder, its architecture, parameters, the types of the file's tensors, and its licence."""

    folder: Path
    architecture: str
    parameters: int
    types: dict[str, int]
    licence: str
    compared_tokens: int


def import_gguf(gguf: Path, out: Path, source: str = "", progress_bar: ByteProgressBar = no_progress_bar) -> Imported:
    """Write a GGUF file as a folder with config.json, tokenizer.json and model.safetensors.

    Args:
        gguf: the file.
        out: the folder, which must not be there yet; it appears whole or not at all.
        source: where the file came from, for the folder's README.md.
        progress_bar: shows how much of the weights is written.

    Raises:
        BadGguf: the file is cut or unsound.
        UsageError: a family, tokenizer or RoPE scaling that is not supported, or `out` is there.
        GateError: the tokenizer that was made cuts a text in another way than llama.cpp does.
    """
    from gguf import GGUFReader

    if out.exists():
        raise UsageError(f"{out} is there already", hint="choose another folder, or move it away")
    header = require_gguf(gguf)
    _require_family(header, gguf)
    reader = GGUFReader(gguf)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    config = config_of(fields, reader, gguf)
    shape = layout.read_shape(config)
    _require_tensors(reader, shape, gguf)
    aside = out.with_name(out.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        (aside / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        _write_tokenizer(fields, aside, str(gguf))
        compared = _compare_tokens(gguf, aside)
        parameters = _write_weights(reader, shape, aside / "model.safetensors", progress_bar)
        types = {one: list(header.tensor_types.values()).count(one) for one in sorted({*header.tensor_types.values()})}
        licence = str(fields.get("general.license", "unknown"))
        done = Imported(out, config["architectures"][0], parameters, types, licence, compared)
        (aside / "README.md").write_text(_readme(done, fields, source or gguf.name, gguf), encoding="utf-8")
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return done


def _require_family(header: GgufHeader, gguf: Path) -> None:
    known = sorted({family.architecture for family in FAMILIES.values()})
    found = header.metadata.get("general.architecture")
    if found not in known:
        raise UsageError(f"{gguf}: the architecture {found!r} is not supported", hint=f"supported: {', '.join(known)}")
    if header.metadata.get(f"{found}.expert_count"):
        raise UsageError(f"{gguf}: mixtures of experts are not supported")


def config_of(fields: Mapping[str, Any], reader: GGUFReader, gguf: Path) -> dict[str, Any]:
    """Return the config.json of a file's values. Raises UsageError for a RoPE scaling that is not supported."""
    family = str(fields["general.architecture"])
    name = next(name for name, one in FAMILIES.items() if one.architecture == family)
    tensors = {one.name: one for one in reader.tensors}

    def value(key: str, default: Any = None) -> Any:
        found = fields.get(f"{family}.{key}", default)
        if found is None:
            raise UsageError(f"{gguf}: the key {family}.{key} is missing")
        return found

    heads, hidden = value("attention.head_count"), value("embedding_length")
    ids = {key: fields.get(f"tokenizer.ggml.{theirs}_token_id") for key, theirs in
           {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}.items()}  # fmt: skip
    if "token_embd.weight" not in tensors:
        raise UsageError(f"{gguf}: the tensor token_embd.weight is missing")
    config = {
        "architectures": [name],
        "model_type": family,
        "hidden_act": FAMILIES[name].activation,
        "vocab_size": int(tensors["token_embd.weight"].shape[1]),
        "hidden_size": hidden,
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value("attention.head_count_kv", heads),
        "head_dim": value("attention.key_length", hidden // heads),
        "max_position_embeddings": value("context_length"),
        "rms_norm_eps": value("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in tensors,
        "dtype": "bfloat16",
        **{key: found for key, found in ids.items() if found is not None},
    }
    if window := fields.get(f"{family}.attention.sliding_window"):
        config["sliding_window"] = window
    config |= _rope(fields, family, config, tensors, gguf)
    return config | _gemma3(fields, config) if family == "gemma3" else config


def _rope(
    fields: Mapping[str, Any], family: str, config: dict[str, Any], tensors: Mapping[str, ReaderTensor], gguf: Path
) -> dict[str, Any]:
    """Return what config.json says of positions."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(fields.get(f"{family}.rope.freq_base", 1e4))}
    if (kind := fields.get(f"{family}.rope.scaling.type", "none")) not in ("none", "longrope"):
        raise UsageError(f"{gguf}: RoPE scaling {kind!r} is not supported", hint="supported: none, llama3, longrope")
    if fields.get(f"{family}.rope.dimension_count", config["head_dim"]) != config["head_dim"]:
        raise UsageError(f"{gguf}: RoPE over a part of each head is not supported")
    found = {name: tuple(float(x) for x in tensors[name].data.ravel()) for name in _PARTS_OF_ROPE & tensors.keys()}
    if freqs := found.get("rope_freqs.weight"):
        rope |= _LLAMA3 | {"rope_type": "llama3", "factor": max(freqs)}
        made = layout.read_shape(config | {"rope_parameters": rope}).rope.factors["rope_freqs.weight"]
        if len(made) != len(freqs) or any(abs(a - b) > _PRECISION * b for a, b in zip(made, freqs, strict=True)):
            raise UsageError(f"{gguf}: its rope_freqs.weight is not that of Llama 3's RoPE scaling")
    elif found:
        original = int(fields[f"{family}.rope.scaling.original_context_length"])
        rope |= {
            "rope_type": "longrope",
            "short_factor": found["rope_factors_short.weight"],
            "long_factor": found["rope_factors_long.weight"],
            "attention_factor": fields.get(f"{family}.rope.scaling.attn_factor", 1.0),
            "original_max_position_embeddings": original,
        }
        return {"rope_parameters": rope, "original_max_position_embeddings": original}
    return {"rope_parameters": rope}


def _gemma3(fields: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what config.json says of Gemma 3 in another way, or beside. Source: llama.cpp src/models/gemma3.cpp."""
    pattern = fields.get("gemma3.attention.sliding_window_pattern", FAMILIES["Gemma3ForCausalLM"].window_period)
    if isinstance(pattern, list):
        kinds = [WINDOWED if has_window else FULL for has_window in pattern]
    else:
        kinds = layout.layer_types(config["num_hidden_layers"], pattern)
    theta = float(fields.get("gemma3.rope.freq_base_swa", 1e4))
    return {
        "model_type": "gemma3_text",
        "hidden_activation": config["hidden_act"],
        "query_pre_attn_scalar": layout.query_scalar(config),
        "final_logit_softcapping": fields.get("gemma3.final_logit_softcapping"),
        "layer_types": kinds,
        "rope_parameters": {FULL: config["rope_parameters"], WINDOWED: {"rope_type": "default", "rope_theta": theta}},
    }


def _write_tokenizer(fields: Mapping[str, Any], folder: Path, where: str) -> None:
    plain = tokenizer_json(fields, where)
    (folder / "tokenizer.json").write_text(json.dumps(plain, ensure_ascii=False), encoding="utf-8")
    tokens = fields["tokenizer.ggml.tokens"]
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    ids = {ours: fields.get(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in names.items()}
    config = {f"{name}_token": tokens[number] for name, number in ids.items() if number is not None}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    if template := fields.get("tokenizer.chat_template"):
        (folder / "chat_template.jinja").write_text(str(template), encoding="utf-8")


def _compare_tokens(gguf: Path, folder: Path) -> int:
    """Return how many tokens of awkward texts were compared. Raises GateError at the first that differs."""
    from transformers import PreTrainedTokenizerFast

    from export.gates.parity import check_tokens
    from export.llama_cpp_file import LlamaFile

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    with LlamaFile(gguf) as model:
        return check_tokens(model, tokenizer, [])


def _require_tensors(reader: GGUFReader, shape: Shape, gguf: Path) -> None:
    """Raise UsageError unless the file has the tensors of its family, in the shapes that its keys say."""
    tensors = {one.name: tuple(int(size) for size in reversed(one.shape)) for one in reader.tensors}
    names = layout.tensor_names(shape)
    for name, theirs in names.items():
        if theirs not in tensors:
            raise UsageError(f"{gguf}: the tensor {theirs} is missing")
        if tensors[theirs] != (expected := shape.tensor_shape(name)):
            raise UsageError(f"{gguf}: {theirs} is {tensors[theirs]}, its keys say {expected}")
    if strange := sorted(tensors.keys() - set(names.values()) - _PARTS_OF_ROPE):
        raise UsageError(f"{gguf}: the tensor {strange[0]} has no place in {shape.family.architecture}")


def _write_weights(reader: GGUFReader, shape: Shape, path: Path, progress_bar: ByteProgressBar) -> int:
    """Write all weights in bfloat16; return how many there are. Source of the form: safetensors' README.md."""
    import torch

    tensors, names = {one.name: one for one in reader.tensors}, layout.tensor_names(shape)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in names:
        size = shape.tensor_shape(name)
        end = at + 2 * math.prod(size)
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [at, end]}
        at = end
    described = json.dumps(header).encode()
    described += b" " * (-len(described) % 8)
    with path.open("wb") as file, progress_bar(path.name, at) as progress:
        file.write(len(described).to_bytes(8, "little") + described)
        for name, theirs in names.items():
            for block in _blocks(tensors[theirs], shape, name):
                data = block.to(torch.bfloat16).contiguous().view(torch.uint8).numpy()
                file.write(data)
                progress(data.nbytes)
    return at // 2


def _blocks(tensor: ReaderTensor, shape: Shape, name: str) -> Iterator[Tensor]:
    """Yield a tensor's rows as float32, as transformers wants them, some at a time where none move."""
    import torch
    from gguf.quants import dequantize

    width, heads = int(tensor.shape[0]), shape.head_count(name)
    rows = len(tensor.data) if heads or tensor.data.ndim == 1 else max(1, BLOCK_WEIGHTS // width)
    for start in range(0, len(tensor.data), rows):
        block = torch.tensor(dequantize(tensor.data[start : start + rows], tensor.tensor_type))
        block = block - 1 if shape.adds_one(name) else block
        yield layout.unpermute(block, heads) if heads else block


def _readme(done: Imported, fields: Mapping[str, Any], source: str, gguf: Path) -> str:
    types = ", ".join(f"{count} {name}" for name, count in done.types.items())
    return f"""---
license: {done.licence}
---
# {fields.get("general.name", gguf.stem)}

Imported from {source} (SHA-256 {sha256_of(gguf)}) by `edgewright base import`.

{done.parameters:,} parameters, {done.architecture}. In the file: {types}. Here: bfloat16 of the dequantized weights,
so that the model is as good as that file, not as what it was quantized from.

Licence, as the file says: {done.licence}. Made by: {fields.get("general.organization", "not said")}.
"""
