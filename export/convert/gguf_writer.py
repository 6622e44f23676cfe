"""Base model and adapter to one GGUF file of any type: our own converter, streaming from safetensors.

One tensor is in memory at a time, and of an unchanged one only some of its rows; nothing else is written. How a model
is laid out is in architectures.py, the types in quantize/plan.py, their blocks in quantize/quantize.py, the adapter in
lora_merge.py (its own file is adapter_gguf.py's), the vocabulary in tokenizer.py. Nothing here proves that the result
is right: gates/parity.py does.

A weight goes through F16 on its way to another type, as it does in llama.cpp's tools: the file is byte for byte what
llama_model_quantize makes of the F16 file (tests/export/quantize/test_plan.py).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.durable import aside_of, finish
from devices.errors import UsageError
from edge_agent.engine.gguf_header import TENSOR_TYPES
from edge_agent.wire.chat_template import ChatTemplate
from export import architectures as layout
from export.architectures import Shape
from export.convert.lora_merge import Adapter, read_adapter
from export.convert.tokenizer import Vocabulary, read_vocabulary
from export.quantize.plan import Plan, Planned, plan, require_plan
from export.quantize.quantize import quantize
from export.trained.nf4 import base_weight, is_quantized

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray
    from torch import Tensor

BLOCK_WEIGHTS = 2**24  # about how many of an unchanged tensor are in memory at once: 64 MB in float32
METADATA_PREFIX = "edgewright."


@dataclass(frozen=True)
class ConvertReport:
    """What was written. `merged_modules` is how many layers the adapter changed, `types` counts tensors by type."""

    path: Path
    size_bytes: int
    types: dict[str, int]
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
    planned: Plan | None = None,
    importance: Mapping[str, NDArray[float32]] | None = None,
    progress: Callable[[int], object] = lambda size_bytes: None,
) -> ConvertReport:
    """Write the base model with the adapter merged in (in float32) as a GGUF file.

    Args:
        base: folder with config.json, tokenizer.json and safetensors, whole or in shards.
        adapter: folder that peft saved, or None.
        out: the file; it appears whole or not at all.
        template: its source goes into the file, and its end-of-turn token becomes eos and eot.
        name: the model's name.
        metadata: more string keys; `edgewright.` is put before each.
        nf4_dtype: merge into what NF4 keeps of the base, loaded in this type; "" merges into the base as it is.
        planned: the type of each tensor; None is F16, with vectors in F32.
        importance: mean square of each input of a weight matrix, float32 (in,), by GGUF name.
        progress: is told how many bytes more were written.

    Raises:
        UsageError: another architecture, tokenizer, adapter or RoPE scaling than supported, or an unfit file.
        GateError: the file is not as planned.
    """
    shape = layout.read_shape(read_config(base))
    planned = planned or plan(shape, "F16")
    vocabulary = read_vocabulary(base, shape.vocabulary, template.end_of_turn)
    merging = read_adapter(adapter) if adapter else Adapter()
    weights = _Weights(base, shape, merging, nf4_dtype)
    merged_modules = len(merging.sides)
    if strangers := sorted(merging.unused - {tensor.source.removesuffix(".weight") for tensor in planned.tensors}):
        raise UsageError(f"the adapter changes {strangers[0]}, which cannot be merged into this base")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_of(out)
    try:
        strings = _strings(vocabulary, name, metadata)
        with _open_file(aside, shape, vocabulary, template, strings, planned) as file:
            for tensor in planned.tensors:
                for data in _encoded(tensor, shape, weights, (importance or {}).get(tensor.name)):
                    file.write(data)
                    progress(data.nbytes)
                file.pad()
        assert not merging.unused, merging.unused
        types = require_plan(aside, planned)
        finish(aside, out)
    finally:
        aside.unlink(missing_ok=True)
    return ConvertReport(out, out.stat().st_size, types, merged_modules, vocabulary.pre)


def header_bytes(base: Path, planned: Plan, *, template: ChatTemplate, name: str, metadata: dict[str, str]) -> int:
    """Return how large a file is that `convert` would write, less its tensors. Raises UsageError as `convert`."""
    shape = layout.read_shape(read_config(base))
    vocabulary = read_vocabulary(base, shape.vocabulary, template.end_of_turn)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "header.gguf"
        with _open_file(path, shape, vocabulary, template, _strings(vocabulary, name, metadata), planned):
            pass
        return path.stat().st_size


def _strings(vocabulary: Vocabulary, name: str, metadata: dict[str, str]) -> dict[str, str]:
    if vocabulary.drops_blanks_after and "phi-3" not in name.lower():
        name += " (phi-3)"  # llama.cpp drops them by this name
    return {"general.name": name} | {METADATA_PREFIX + key: value for key, value in metadata.items()}


class _Weights:
    """The base model's weights, with the adapter merged in, read from disk when asked for."""

    def __init__(self, base: Path, shape: Shape, adapter: Adapter, nf4_dtype: str) -> None:
        from safetensors import SafetensorError, safe_open

        index = base / "model.safetensors.index.json"
        self._files: dict[str, Path] = {}
        try:
            listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values() if index.is_file() else ()
            for name in sorted(set(listed)) or ["model.safetensors"]:
                with safe_open(base / name, "pt") as file:
                    self._files |= dict.fromkeys(file.keys(), base / name)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise UsageError(f"cannot read the weights in {base}: {error}") from error
        self._shape, self._adapter, self._nf4_dtype = shape, adapter, nf4_dtype
        wanted = layout.tensor_names(shape)
        if missing := sorted(wanted.keys() - self._files.keys()):
            raise UsageError(f"{base}: the weights lack {missing[0]}")
        tied = {"lm_head.weight"} if shape.is_tied else set()
        extra = [key for key in self._files if key not in wanted and key not in tied and "rotary_emb" not in key]
        if extra:
            raise UsageError(f"{base}: the weights have {extra[0]}, which this architecture does not")

    def blocks(self, name: str) -> Iterator[Tensor]:
        """Yield a weight as float32, some of its rows at a time, in the order of the GGUF file.

        Raises:
            UsageError: its shape is not what config.json says.
        """
        from safetensors import safe_open

        # The file is opened for each weight: what was read of it stays in memory until it is closed.
        with safe_open(self._files[name], "pt") as file:
            found = file.get_slice(name)
            expected = self._shape.tensor_shape(name)
            if (actual := tuple(found.get_shape())) != expected:
                raise UsageError(f"{name} is {actual}, config.json says {expected}")
            heads = self._shape.head_count(name)
            is_nf4 = bool(self._nf4_dtype) and is_quantized(name)
            is_whole = bool(heads) or is_nf4 or name.removesuffix(".weight") in self._adapter.sides
            rows = expected[0] if is_whole else max(1, BLOCK_WEIGHTS // expected[-1])
            for start in range(0, expected[0], rows):
                weight = base_weight(name, found[start : start + rows], self._nf4_dtype)
                weight = self._adapter.merge_into(name, weight)
                if self._shape.adds_one(name):
                    weight = weight + 1
                yield layout.permute(weight, heads) if heads else weight


def _encoded(
    tensor: Planned, shape: Shape, weights: _Weights, importance: NDArray[float32] | None
) -> Iterator[NDArray[Any]]:
    """Yield a tensor's bytes. Raises UsageError if F16 cannot hold a value of it."""
    import numpy
    import torch

    if not tensor.source:
        yield numpy.array(shape.rope.factors[tensor.name], numpy.float32)
        return
    for block in weights.blocks(tensor.source):
        if block.ndim == 1:
            yield block.contiguous().numpy()
            continue
        half = block.to(torch.float16)
        if not torch.isfinite(half).all():
            raise UsageError(f"{tensor.source} has values that F16 cannot hold (largest {block.abs().max():g})")
        if tensor.type == "F16":
            yield half.contiguous().numpy()
        else:
            yield quantize(half.float().contiguous().numpy(), tensor.type, importance)


class _File:
    """A GGUF file whose header is written, open for its tensors' bytes."""

    def __init__(self, writer: Any) -> None:
        self._writer, self._out = writer, writer.fout[0]
        self.pad()

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, data: NDArray[Any]) -> None:
        data.tofile(self._out)

    def pad(self) -> None:
        """Fill up to where the next tensor may begin."""
        self._writer.write_padding(self._out, self._out.tell())


def _open_file(
    path: Path, shape: Shape, vocabulary: Vocabulary, template: ChatTemplate, strings: dict[str, str], planned: Plan
) -> _File:
    import gguf
    import numpy

    ids = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}
    writer = gguf.GGUFWriter(path, shape.family.architecture)
    _add_header(writer, shape, vocabulary, template, strings)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{planned.quant}"])
    for tensor in planned.tensors:
        kind = gguf.GGMLQuantizationType(ids[tensor.type])
        writer.add_tensor_info(tensor.name, tensor.shape, numpy.dtype(numpy.float32), tensor.size_bytes, kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    except BaseException:
        writer.close()
        raise
    return _File(writer)


def _add_header(
    writer: Any, shape: Shape, vocabulary: Vocabulary, template: ChatTemplate, strings: dict[str, str]
) -> None:
    import gguf

    for key, value in strings.items():
        writer.add_string(key, value)
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
    if shape.rope.original_context and shape.rope.attention_factor:  # longrope
        writer.add_rope_scaling_orig_ctx_len(shape.rope.original_context)
        writer.add_rope_scaling_attn_factors(shape.rope.attention_factor)
    if shape.window:
        writer.add_sliding_window(shape.window.tokens)
        writer.add_sliding_window_pattern(shape.window.period)
        writer.add_rope_freq_base_swa(shape.window.theta)
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
