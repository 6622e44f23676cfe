"""Base model and adapter to one GGUF file in F16: our own converter, streaming one tensor at a time.

How a model is laid out is in layout.py, the adapter in lora.py (its own file is adapter_file.py's), the vocabulary in
tokenizer.py. Nothing here proves that the result is right: parity.py does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.durable import aside_of, finish
from devices.errors import UsageError
from edge_agent.wire import ChatTemplate
from export import layout
from export.layout import Shape
from export.lora import Adapter, read_adapter
from export.nf4 import base_weight
from export.tokenizer import Vocabulary, read_vocabulary

if TYPE_CHECKING:
    from torch import Tensor

METADATA_PREFIX = "edgewright."


@dataclass(frozen=True)
class ConvertReport:
    """What was written. `merged_modules` is how many layers the adapter changed."""

    path: Path
    size_bytes: int
    tensors: int
    merged_modules: int
    pre_tokenizer: str


def convert(
    base: Path,
    adapter: Path | None,
    out: Path,
    *,
    template: ChatTemplate,
    name: str,
    metadata: dict[str, str],
    nf4_dtype: str = "",
) -> ConvertReport:
    """Write the base model with the adapter merged in (in float32) as a GGUF file in F16; norms stay F32.

    Args:
        base: folder with config.json, tokenizer.json and safetensors, whole or in shards.
        adapter: folder that peft saved, or None.
        out: the file; it appears whole or not at all.
        template: its source goes into the file, and its end-of-turn token becomes eos and eot.
        name: the model's name.
        metadata: more string keys; `edgewright.` is put before each.
        nf4_dtype: merge into what NF4 keeps of the base, loaded in this type; "" merges into the base as it is.

    Raises:
        UsageError: another architecture, tokenizer, adapter or RoPE scaling than supported, or an unfit file.
    """
    shape = layout.read_shape(read_config(base))
    vocabulary = read_vocabulary(base, shape.vocabulary, template.end_of_turn)
    weights = _Weights(base, shape, nf4_dtype)
    merging = read_adapter(adapter) if adapter else Adapter()
    merged_modules = len(merging.sides)
    names = layout.tensor_names(shape)
    if vocabulary.drops_blanks_after and "phi-3" not in name.lower():
        name += " (phi-3)"  # llama.cpp drops them by this name
    if strangers := sorted(merging.unused - {theirs.removesuffix(".weight") for theirs in names}):
        raise UsageError(f"the adapter changes {strangers[0]}, which cannot be merged into this base")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_of(out)
    try:
        _write(aside, shape, vocabulary, weights, merging, template, {"general.name": name} | {
            METADATA_PREFIX + key: value for key, value in metadata.items()
        })  # fmt: skip
        assert not merging.unused, merging.unused
        finish(aside, out)
    finally:
        aside.unlink(missing_ok=True)
    return ConvertReport(out, out.stat().st_size, len(names), merged_modules, vocabulary.pre)


class _Weights:
    """The base model's tensors by name, read from disk when asked for."""

    def __init__(self, base: Path, shape: Shape, nf4_dtype: str) -> None:
        from safetensors import SafetensorError, safe_open

        index = base / "model.safetensors.index.json"
        try:
            listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values() if index.is_file() else ()
            files = sorted(set(listed)) or ["model.safetensors"]
            opened = [safe_open(base / file, "pt") for file in files]
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise UsageError(f"cannot read the weights in {base}: {error}") from error
        self._files: dict[str, Any] = {key: file for file in opened for key in file.keys()}  # noqa: SIM118
        self._shape, self._nf4_dtype = shape, nf4_dtype
        wanted = layout.tensor_names(shape)
        if missing := sorted(wanted.keys() - self._files.keys()):
            raise UsageError(f"{base}: the weights lack {missing[0]}")
        tied = {"lm_head.weight"} if shape.is_tied else set()
        extra = [key for key in self._files if key not in wanted and key not in tied and "rotary_emb" not in key]
        if extra:
            raise UsageError(f"{base}: the weights have {extra[0]}, which this architecture does not")

    def load(self, name: str) -> Tensor:
        """Return one weight as float32. Raises UsageError if its shape is not what config.json says."""
        tensor: Tensor = self._files[name].get_tensor(name)
        if tuple(tensor.shape) != self._shape.tensor_shape(name):
            raise UsageError(f"{name} is {tuple(tensor.shape)}, config.json says {self._shape.tensor_shape(name)}")
        return base_weight(name, tensor, self._nf4_dtype)


def _write(
    path: Path, shape: Shape, vocabulary: Vocabulary, weights: _Weights, adapter: Adapter,
    template: ChatTemplate, strings: dict[str, str],
) -> None:  # fmt: skip
    import gguf
    import numpy
    import torch

    writer = gguf.GGUFWriter(path, shape.family.architecture)
    _add_header(writer, shape, vocabulary, template, strings)
    factors = {name: numpy.array(values, numpy.float32) for name, values in shape.rope.factors.items()}
    for name, values in factors.items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    names = layout.tensor_names(shape)
    for theirs, ours in names.items():
        wanted = shape.tensor_shape(theirs)
        dtype = numpy.dtype(numpy.float32 if len(wanted) == 1 else numpy.float16)
        size_bytes = int(numpy.prod(wanted)) * dtype.itemsize
        writer.add_tensor_info(ours, wanted, dtype, size_bytes)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for values in factors.values():
            writer.write_tensor_data(values)
        for theirs in names:
            weight = adapter.merge_into(theirs, weights.load(theirs))
            if heads := shape.head_count(theirs):
                weight = layout.permute(weight, heads)
            stored = weight if weight.ndim == 1 else weight.to(torch.float16)
            if not torch.isfinite(stored).all():
                raise UsageError(f"{theirs} has values that F16 cannot hold (largest {weight.abs().max():g})")
            writer.write_tensor_data(stored.contiguous().numpy())
    finally:
        writer.close()


def _add_header(
    writer: Any, shape: Shape, vocabulary: Vocabulary, template: ChatTemplate, strings: dict[str, str]
) -> None:
    import gguf

    for key, value in strings.items():
        writer.add_string(key, value)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context_tokens)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope.theta)
    if shape.rope.original_context:
        writer.add_rope_scaling_orig_ctx_len(shape.rope.original_context)
    if shape.rope.attention_factor:
        writer.add_rope_scaling_attn_factors(shape.rope.attention_factor)
    writer.add_layer_norm_rms_eps(shape.rms_epsilon)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.types))
    if vocabulary.scores:
        writer.add_token_scores(list(vocabulary.scores))
        writer.add_add_space_prefix(vocabulary.has_blank_before)
    else:
        writer.add_token_merges(list(vocabulary.merges))
    writer.add_eos_token_id(vocabulary.end_of_turn)
    writer.add_eot_token_id(vocabulary.end_of_turn)
    if vocabulary.bos is not None:
        writer.add_bos_token_id(vocabulary.bos)
    if vocabulary.padding is not None:
        writer.add_pad_token_id(vocabulary.padding)
    writer.add_add_bos_token(False)  # the template writes it where a family wants one
    writer.add_chat_template(template.source)


def read_config(base: Path) -> dict[str, Any]:
    """Return config.json of a base model. Raises UsageError if it cannot be read."""
    try:
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the base model {base}: {error}", hint="give a local folder") from error
    if not isinstance(config, dict):
        raise UsageError(f"{base / 'config.json'}: not a JSON object")
    return config
