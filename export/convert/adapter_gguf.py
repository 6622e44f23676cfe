"""A LoRA adapter as a GGUF file that llama.cpp applies to a base's file, so that an update is megabytes.

The scale (alpha / rank, or alpha / sqrt(rank) for rsLoRA, by module) is multiplied into each B, and llama.cpp told of
none. Source: llama.cpp 0c1e57098 src/llama-adapter.cpp, src/llama-adapter.h (get_scale), convert_lora_to_gguf.py.
"""

from __future__ import annotations

from pathlib import Path

from devices.durable import aside_of, finish
from devices.errors import UsageError
from export import architectures as layout
from export.architectures import Shape
from export.convert.gguf_writer import METADATA_PREFIX
from export.convert.lora_merge import read_adapter


def write_adapter(shape: Shape, adapter: Path, out: Path, name: str, metadata: dict[str, str]) -> int:
    """Write an adapter's file in F32; it appears whole or not at all. Return its size in bytes.

    Args:
        shape: of the base.
        adapter: folder that peft saved.
        out: the file.
        name: the adapter's.
        metadata: as `convert`.

    Raises:
        UsageError: it is no LoRA, or DoRA, which needs the base's weights, or it is for another base.
    """
    import gguf

    lora = read_adapter(adapter)
    names = layout.tensor_names(shape)
    aside = aside_of(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(aside, shape.family.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    for key, value in metadata.items():
        writer.add_string(METADATA_PREFIX + key, value)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 0.0)
    try:
        for module, sides in lora.sides.items():
            theirs = f"{module}.weight"
            if "magnitude" in sides:
                raise UsageError(
                    f"{adapter} is DoRA, which changes lengths of the base's rows", hint="export it merged"
                )
            rows, columns = shape.tensor_shape(theirs)
            low, high = sides["A"].float(), sides["B"].float() * lora.scales[module]
            if theirs not in names or (high.shape[0], low.shape[1]) != (rows, columns):
                raise UsageError(f"{adapter} changes {module}, which this base has in another shape or not at all")
            if heads := shape.head_count(theirs):
                high = layout.permute(high, heads)
            writer.add_tensor(f"{names[theirs]}.lora_a", low.contiguous().numpy())
            writer.add_tensor(f"{names[theirs]}.lora_b", high.contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        finish(aside, out)
    finally:
        aside.unlink(missing_ok=True)
    return out.stat().st_size
