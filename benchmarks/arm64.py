"""The same tokens on ARM as here? A kit, installed on an emulated 64-bit ARM machine, replies to held-out cases.

    python -m benchmarks.arm64 --work FOLDER --out benchmarks/results/arm64.json

Makes what is missing in FOLDER: a kit for a Raspberry Pi 5, Debian for arm64 (scripts/arm64.sh) with the kit installed
by its own install.sh, the starter as a Q8_0 file, and cases. Killed, it goes on where it was: a case takes 5 to 20
seconds there. An emulator says nothing about speed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.runs import save
from devices.site.site import load_site
from edge_agent.evaluation.cases import write_cases
from edge_agent.wire.chat_template import load_template
from edgewright import main as edgewright
from export.architectures import read_shape
from export.convert.gguf_writer import convert, read_config
from export.quantize.plan import plan
from finetune.data.generator import generate_cases
from finetune.recipe import STARTER_FOLDER

ROOT = Path(__file__).resolve().parent.parent
SITE, TARGET, SEED = "home", "rpi5-8gb", 6000
PYTHON = "/opt/edgewright/current/bin/python"


def main() -> None:
    """Compare, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=120)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    work = given.work.resolve()
    kit, machine, share = work / "kit", work / "arm64", work / "share"
    share.mkdir(parents=True, exist_ok=True)
    if not kit.is_dir() and edgewright(["box", "build", "--target", TARGET, "--out", str(kit)]):
        sys.exit("no kit")
    if not machine.is_dir():
        subprocess.run(["sh", str(ROOT / "scripts" / "arm64.sh"), "make", str(machine)], check=True)
    on_arm(machine, kit, "sh", "/mnt/install.sh")
    model, cases = share / "starter-Q8_0.gguf", share / "cases.jsonl"
    if not model.is_file():
        planned = plan(read_shape(read_config(STARTER_FOLDER)), "Q8_0")
        template = load_template("chatml")
        convert(STARTER_FOLDER, None, model, template=template, name="starter", metadata={}, planned=planned)
    write_cases(cases, list(generate_cases(load_site(SITE), given.cases, SEED)))
    script = Path(__file__).with_name("arm64_replies.py")
    (share / script.name).write_bytes(script.read_bytes())
    names = (script.name, model.name, cases.name)
    here, there = share / "here.jsonl", share / "there.jsonl"
    here.unlink(missing_ok=True)
    machines = {
        "here": run([sys.executable, *(str(share / name) for name in names), SITE, str(here)]),
        "there": on_arm(machine, share, PYTHON, *(f"/mnt/{name}" for name in names), SITE, f"/mnt/{there.name}"),
    }
    result = compared(read(here), read(there)) | {name: json.loads(text) for name, text in machines.items()}
    result |= {"kit": json.loads((kit / "kit.json").read_text(encoding="utf-8"))}
    save(result, given.out)
    print(json.dumps(result, indent=1))


def on_arm(machine: Path, share: Path, *command: str) -> str:
    """Return what a command says on the emulated machine, where `share` is /mnt."""
    words = ["env", f"SHARE={share}", "sh", str(ROOT / "scripts" / "arm64.sh"), "run", str(machine), *command]
    return run(words)


def run(command: list[str]) -> str:
    """Return a command's output."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def read(replies: Path) -> list[dict[str, Any]]:
    """Return a side's lines."""
    return [json.loads(line) for line in replies.read_text(encoding="utf-8").splitlines()]


def compared(here: list[dict[str, Any]], there: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many cases have the same tokens in all replies, and the replies of the others."""
    pairs = list(zip(here, there, strict=True))
    parted = [{"here": one, "there": other} for one, other in pairs if one != other]
    return {
        "command": "python -m benchmarks.arm64 --work FOLDER",
        "model": "starter, Q8_0",
        "emulated": "qemu-user, cortex-a76",
        "cases": len(here),
        "replies": sum(len(one["replies"]) for one in here),
        "tokens": sum(len(tokens) for one in here for tokens, _ in one["replies"]),
        "cases_with_the_same_tokens": len(here) - len(parted),
        "parted": parted,
    }


if __name__ == "__main__":
    main()
