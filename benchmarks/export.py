"""Time, memory and disk from base and adapter to Q4_K_M: ours against merging with peft, converting and quantizing.

    python -m benchmarks.export --shape 1b --shape 3b --oracle DIR --python PATH --vocabularies VOCABULARIES

Random weights in the shapes of Llama 3.2 1B and 3B with the real Llama 3 vocabulary and a LoRA adapter of rank 16 on
the seven projections. Theirs is what llama.cpp's documentation leads to: peft merges and saves a Hugging Face folder,
`convert_hf_to_gguf.py` makes an F16 file of it, `llama_model_quantize` (what `llama-quantize` calls) makes the rest;
each step is a process of its own, and what a step no longer needs is deleted. Ours is one process. Neither measures
what the gates of `edgewright export` cost; those have no counterpart there. DIR is a llama.cpp source tree (the
llama-cpp-python source archive has one under vendor/llama.cpp), PATH a Python with what its converter requires; see
converter_parity.py.

Memory is the largest resident memory of a process, with what it maps of files. Disk is the most that stood in the
folder worked in, the base not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.converter_parity import copy_for_upstream
from edge_agent.engine.machine import installed_versions, this_machine

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 64},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "head_dim": 64},
    "3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
           "num_key_value_heads": 8, "head_dim": 128},
}  # fmt: skip
ROPE = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}  # fmt: skip
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
POLL_S = 0.05

MAKE = """
import json, sys, torch, transformers
from pathlib import Path
from peft import LoraConfig, get_peft_model
from tests.families import as_published, read_vocabulary
folder, shape, vocabularies = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
tokenizer, rows = read_vocabulary(vocabularies / "ggml-vocab-llama-bpe.gguf")
torch.set_default_dtype(torch.bfloat16)
torch.manual_seed(3)
config = transformers.LlamaConfig(**shape, vocab_size=rows)
model = transformers.LlamaForCausalLM(config)
model.save_pretrained(folder + "/base", max_shard_size="4GB")
tokenizer.save_pretrained(folder + "/base")
path = Path(folder, "base", "tokenizer.json")
path.write_text(json.dumps(as_published(json.loads(path.read_text()), "llama-bpe", rows)))
adapted = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=json.loads(sys.argv[4])))
for name, weight in adapted.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(weight, std=0.02)
adapted.save_pretrained(folder + "/adapter")
"""
OURS = """
import sys
from pathlib import Path
from edge_agent.wire.chat_template import load_template
from export.convert.gguf_writer import convert, read_config
from export.architectures import read_shape
from export.quantize.plan import plan
base, adapter, out = map(Path, sys.argv[1:])
planned = plan(read_shape(read_config(base)), "Q4_K_M")
convert(base, adapter, out, template=load_template("llama3"), name="bench", metadata={}, planned=planned)
"""
MERGE = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, adapter, out = sys.argv[1:]
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16), adapter)
model.merge_and_unload().save_pretrained(out)
AutoTokenizer.from_pretrained(base).save_pretrained(out)
"""
QUANTIZE = """
import ctypes, sys, llama_cpp
parameters = llama_cpp.llama_model_quantize_default_params()
parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(parameters)))
"""


@dataclass(frozen=True)
class Cost:
    """What something took."""

    seconds: float
    memory_mb: float
    disk_mb: float


class _Disk:
    """Watches how much stands in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._ended, self.most = folder, threading.Event(), 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Disk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(POLL_S):
            try:
                self.most = max(self.most, sum(path.lstat().st_size for path in self._folder.rglob("*")))
            except FileNotFoundError:  # renamed or deleted meanwhile
                continue


def run(arguments: Sequence[str], environment: dict[str, str] | None = None) -> float:
    """Run one process to its end; return its peak memory in MB. Raises CalledProcessError with its last words."""
    process = subprocess.Popen(
        arguments, env=os.environ | (environment or {}), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr
    words = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        print(words.decode(errors="replace")[-2000:], file=sys.stderr)
        raise subprocess.CalledProcessError(code, list(arguments)[:3])
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def ours(base: Path, adapter: Path, folder: Path) -> dict[str, Cost]:
    """From safetensors to the quantized file in one process."""
    return {"all": cost(folder, [sys.executable, "-c", OURS, str(base), str(adapter), str(folder / "q4.gguf")])}


def theirs(base: Path, adapter: Path, folder: Path, oracle: Path, python: str) -> dict[str, Cost]:
    """Merge, convert, quantize."""
    merged, f16 = folder / "merged", folder / "f16.gguf"
    steps = {"merge": cost(folder, [sys.executable, "-c", MERGE, str(base), str(adapter), str(merged)])}
    copy = folder / "for-an-older-transformers"
    copy_for_upstream(merged, copy)  # links to the weights
    converter = [python, str(oracle / "convert_hf_to_gguf.py"), str(copy), "--outtype", "f16", "--outfile", str(f16)]
    steps["convert"] = cost(folder, converter, {"PYTHONPATH": str(oracle / "gguf-py")})
    shutil.rmtree(copy)
    shutil.rmtree(merged)
    steps["quantize"] = cost(folder, [sys.executable, "-c", QUANTIZE, str(f16), str(folder / "q4.gguf")])
    f16.unlink()
    total = Cost(
        sum(step.seconds for step in steps.values()),
        max(step.memory_mb for step in steps.values()),
        max(step.disk_mb for step in steps.values()),
    )
    without = Cost(
        steps["convert"].seconds + steps["quantize"].seconds,
        max(steps["convert"].memory_mb, steps["quantize"].memory_mb),
        steps["quantize"].disk_mb,
    )
    return steps | {"all": total, "without merging": without}


def cost(folder: Path, arguments: Sequence[str], environment: dict[str, str] | None = None) -> Cost:
    """Run one step, and measure it."""
    started_s = time.monotonic()
    root = {"PYTHONPATH": str(Path(__file__).parents[1])}
    with _Disk(folder) as disk:
        memory_mb = run(arguments, root if environment is None else environment)
    return Cost(round(time.monotonic() - started_s, 2), round(memory_mb, 1), round(disk.most / 1e6, 1))


def make_model(shape: str, vocabularies: Path, folder: Path) -> None:
    """Save a base model with random weights and an adapter for it, as `base` and `adapter`."""
    config = SHAPES[shape] | {"tie_word_embeddings": True, "rope_parameters": ROPE, "rms_norm_eps": 1e-5,
                              "max_position_embeddings": 131072}  # fmt: skip
    run([sys.executable, "-c", MAKE, str(folder), json.dumps(config), str(vocabularies), json.dumps(PROJECTIONS)],
        {"PYTHONPATH": str(Path(__file__).parents[1])})  # fmt: skip


def make_shape(shape: str, vocabularies: Path, folder: Path) -> Path:
    """Return random weights in a shape as a Q4_K_M file, with Llama 3's vocabulary."""
    from edge_agent.wire.chat_template import load_template
    from export.architectures import read_shape
    from export.convert.gguf_writer import convert, read_config
    from export.quantize.plan import plan

    make_model(shape, vocabularies, folder)
    base, out = folder / "base", folder / f"{shape}-Q4_K_M.gguf"
    planned = plan(read_shape(read_config(base)), "Q4_K_M")
    convert(base, None, out, template=load_template("llama3"), name=shape, metadata={}, planned=planned)
    return out


def measure(shape: str, rounds: int, oracle: Path, python: str, vocabularies: Path, scratch: Path) -> dict[str, Any]:
    """Return both sides' costs for a shape, in turns, and how ours compare."""
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    with tempfile.TemporaryDirectory(dir=scratch) as text:
        folder = Path(text)
        make_model(shape, vocabularies, folder)
        for number in range(rounds):
            for side in ("ours", "theirs"):
                work = folder / f"{side}-{number}"
                work.mkdir()
                given = (folder / "base", folder / "adapter", work)
                costs = ours(*given) if side == "ours" else theirs(*given, oracle, python)
                found[side].append({name: asdict(one) for name, one in costs.items()})
                print(shape, side, costs["all"], file=sys.stderr, flush=True)
                shutil.rmtree(work)
    mine, other = (_medians([one["all"] for one in found[side]]) for side in ("ours", "theirs"))
    bare = _medians([one["without merging"] for one in found["theirs"]])
    return {
        "runs": found,
        "ours": mine,
        "theirs": other,
        "theirs_without_merging": bare,
        "ratio": {key: round(mine[key] / other[key], 3) for key in mine},
        "ratio_without_merging": {key: round(mine[key] / bare[key], 3) for key in mine},
    }


def _medians(costs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in costs) for key in costs[0]}


def main() -> int:
    """Run the command; exit code 5 if ours is slower, or needs more than half the memory or disk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=list(SHAPES), required=True)
    parser.add_argument("--oracle", type=Path, required=True, help="a llama.cpp source tree")
    parser.add_argument("--python", required=True, help="of an environment with its converter's requirements")
    parser.add_argument("--vocabularies", type=Path, required=True, help="folder with ggml-vocab-llama-bpe.gguf")
    parser.add_argument("--rounds", type=int, default=2, help="of both, in turns")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="where files go")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    shapes = {
        shape: measure(
            shape, arguments.rounds, arguments.oracle, arguments.python, arguments.vocabularies, arguments.scratch
        )
        for shape in arguments.shape
    }
    result = {
        "command": "python -m benchmarks.export " + " ".join(f"--shape {shape}" for shape in arguments.shape),
        "machine": this_machine(),
        "cores": os.cpu_count(),
        "versions": installed_versions(),
        "shapes": shapes,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for shape, found in shapes.items():
        for key in ("ratio", "ratio_without_merging"):
            print(f"{shape}: ours / theirs{key.removeprefix('ratio').replace('_', ' ')}: {found[key]}")
    met = all(
        found["ratio"]["seconds"] <= 1 and found["ratio"]["memory_mb"] <= 0.5 and found["ratio"]["disk_mb"] <= 0.5
        for found in shapes.values()
    )
    return 0 if met else 5


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
