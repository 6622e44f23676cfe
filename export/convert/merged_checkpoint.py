"""A base with its adapter merged in, as a Hugging Face folder: for those who go on with other tools.

Merged in float32 and written in the base's own type, file by file as the base has them, so that memory is that of one.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from devices.errors import UsageError
from export.convert.lora_merge import read_adapter
from export.trained.nf4 import base_weight

BESIDE_THE_WEIGHTS = ("*.json", "tokenizer.model", "*.jinja")


def save_merged(base: Path, adapter: Path, out: Path, nf4_dtype: str = "") -> None:
    """Write the merged model into a folder, which must not be there yet; it appears whole or not at all.

    Args:
        base: folder with config.json and safetensors.
        adapter: folder that peft saved.
        out: the folder.
        nf4_dtype: as `convert`.

    Raises:
        UsageError: `out` is there, or the adapter cannot be merged into the base.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    if out.exists():
        raise UsageError(f"{out} is there already", hint="choose another folder, or move it away")
    merging, aside = read_adapter(adapter), out.with_name(out.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        for path in sorted(path for pattern in BESIDE_THE_WEIGHTS for path in base.glob(pattern)):
            shutil.copyfile(path, aside / path.name)
        for path in sorted(base.glob("*.safetensors")):
            tensors = {}
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (it is no mapping)
                    weight = file.get_tensor(name)
                    merged = merging.merge_into(name, base_weight(name, weight, nf4_dtype))
                    tensors[name] = merged.to(weight.dtype).contiguous()
            save_file(tensors, aside / path.name, metadata={"format": "pt"})
        if merging.unused:
            raise UsageError(f"the adapter changes {min(merging.unused)}, which the base does not have")
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
