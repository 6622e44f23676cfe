"""`edgewright train` with FSDP on CPUs, for tests: accelerate asks for GPUs before it shards, torch does not."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import accelerate.state
from accelerate.state import AcceleratorState, DistributedType

from devices.yaml_file import plain_values, read_yaml

CONFIG = Path(__file__).parents[3] / "finetune" / "fsdp.yaml"


def shard_on_cpus(before: Any) -> Any:
    """Return the constructor of accelerate's state, made to shard where it would only average gradients."""

    def start(state: AcceleratorState, *arguments: Any, **options: Any) -> None:
        before(state, *arguments, **options)
        plugin = options.get("fsdp_plugin")
        if plugin is not None and state.distributed_type == DistributedType.MULTI_CPU:
            state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, plugin
            if state._mixed_precision != "no":
                plugin.set_mixed_precision(state._mixed_precision)

    return start


if __name__ == "__main__":
    config = plain_values(read_yaml(CONFIG, "accelerate configuration").root)["fsdp_config"]
    for name, value in config.items():
        os.environ[name.upper()] = str(value).lower() if isinstance(value, bool) else str(value)
    os.environ["ACCELERATE_USE_FSDP"] = "true"  # as `accelerate launch` sets them
    accelerate.state.AcceleratorState.__init__ = shard_on_cpus(AcceleratorState.__init__)
    from edgewright import main

    sys.exit(main())
