"""From what zigbee2mqtt tells on a broker to evaluated cases of the site that is made of it, short of training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.imports import ZIGBEE, on_port
from devices.drivers.mqtt.peer import MqttPeer
from devices.drivers.registry import load_checked_site, settings_of
from devices.exchange.imports.zigbee2mqtt import import_zigbee2mqtt
from devices.simulated_peers import Stage
from devices.simulation.peer import RealTimeWorld
from devices.site.tools import call_of
from edge_agent.evaluation.case_simulation import CaseSimulation
from edge_agent.evaluation.cases import Case, read_cases
from edge_agent.evaluation.evaluation import run_cases
from edge_agent.evaluation.scoring import score_case
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.messages import Message, body_of
from edge_agent.wire.spelling import usual_spelling
from edgewright import main
from finetune.data.rows import read_rows
from tests.edge_agent.home_cases import CaseEngine, answer_text
from tests.ports import free_port

FOUND = ["desk lamp", "hallway lamp", "dual switch", "living radiator", "front door", "kitchen window", "air purifier"]


def right_replies(simulation: CaseSimulation, case: Case) -> tuple[str, ...]:
    calls = [call_of(command, simulation.contract.tools) for command in case.commands]
    steps = [[call] for call in calls] if case.in_order else [calls] if calls else []
    texts = [body_of(Message("assistant", "", "t", tuple(step))) for step in steps]
    return (*texts, answer_text("t", " ".join(words[0] for words in case.answer_has) or "Done."))


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_what_is_discovered_can_be_simulated_and_made_data_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.agent.agent.parts_of", lambda text, _: [text])  # replies are to whole requests
    from paho.mqtt.publish import single

    definitions = [one for one in json.loads(ZIGBEE.read_text(encoding="utf-8")) if one["friendly_name"] in FOUND]
    assert len(definitions) == len(FOUND)
    made, port = tmp_path / "made.yaml", free_port()
    made.write_text(import_zigbee2mqtt(definitions, "127.0.0.1", "here").site_file("made"), encoding="utf-8")
    peer_site = on_port(load_checked_site(made), port)
    broker = MqttPeer(*settings_of(peer_site, "zigbee"), RealTimeWorld(peer_site))
    broker.start()
    found = str(tmp_path / "found.yaml")
    try:
        text = json.dumps(definitions)
        single("zigbee2mqtt/bridge/devices", text, retain=True, hostname="127.0.0.1", port=port)
        assert main(["devices", "discover", "--mqtt", "127.0.0.1", "--port", str(port), "--out", found]) == 0
    finally:
        broker.stop()
    assert main(["devices", "check", found]) == 0
    site = load_checked_site(found)
    stage = Stage(site)  # what `sim up` runs
    try:
        assert main(["devices", "read", "--live", "--site", found]) == 0
        journal = str(tmp_path / "journal.sqlite")
        call = ["devices", "call", "living_radiator", "set", "target_c=20.5", "--live", "--site", found]
        assert main([*call, "--journal", journal]) == 0
    finally:
        stage.close()

    rows, held_out = tmp_path / "rows.jsonl", tmp_path / "cases.jsonl"
    assert main(["data", "generate", "--site", found, "-n", "60", "--out", str(rows)]) == 0
    assert main(["data", "generate", "--site", found, "-n", "40", "--held-out", "--out", str(held_out)]) == 0
    simulation, cases = CaseSimulation(site, load_template("chatml")), read_cases(held_out)
    assert {row.messages[0].text for row in read_rows(rows)} == {simulation.contract.system_text}
    words = simulation.contract.words
    engine = CaseEngine({usual_spelling(case.ask, words): right_replies(simulation, case) for case in cases})
    problems = [score_case(one).problems for one in run_cases(engine, cases, simulation.start_turn, batch_size=8)]
    assert len(problems) == 40 and not any(problems)
