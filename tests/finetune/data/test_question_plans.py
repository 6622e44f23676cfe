"""Questions which device is meant: training has those that the agent asks, and what is done on the answers."""

from __future__ import annotations

from random import Random

import pytest

from devices.errors import UsageError
from devices.simulation.world import World
from devices.site.site import load_site
from devices.site.tools import call_of
from edge_agent.agent.simulation import Simulation
from edge_agent.wire.chat_template import load_template
from finetune.data.generator import Stage, carry_out, draw_plan, generate_rows, random_world
from finetune.data.plan_kinds import MAKERS
from finetune.data.random_sites import random_site, with_near_names
from tests.edge_agent.agent.test_agent import answer, calls, play

ONLY = dict.fromkeys(MAKERS, 0.0) | {"which_one": 1.0}


@pytest.mark.parametrize("seed", [0, 1, 4, 5])
def test_the_agent_asks_and_does_what_training_shows(seed: int) -> None:
    rng = Random(seed)
    while True:
        stage = Stage.of(with_near_names(random_site(rng), rng), ONLY)
        world = random_world(stage.site, rng)
        try:
            plan = draw_plan(stage, world, rng, held_out=False)
        except UsageError:  # no two of its devices share a word
            continue
        break
    agent = Simulation(stage.site, load_template("chatml")).agent(World(stage.site, world.snapshot(), world.time_s))
    user, question, then, done, _, last = carry_out(plan, stage, world)[0]
    assert [user.role, question.role, then.role, last.text] == ["user", "assistant", "user", "Done."]
    assert plan.then and not question.calls and ("?",) in plan.answer_has
    (command,) = plan.then.steps[0]
    proposed = call_of(command, stage.tools)  # type: ignore[arg-type]
    result, requests = play(agent, plan.ask, calls((proposed.name, proposed.arguments)))
    assert (result.answer, result.actions) == (question.text, ())
    assert requests[0].prompt.split("<|im_start|>user\n")[1].startswith(user.text)
    result, requests = play(agent, plan.then.ask, answer("Done."))
    assert [call_of(one, stage.tools) for one in [command]] == list(done.calls)  # type: ignore[arg-type]
    assert [(one.device, one.action, one.status) for one in result.actions] == [
        (command.device, command.action, "done")
    ]  # type: ignore[union-attr]
    assert question.thought in requests[0].prompt


def test_random_sites_have_such_names_and_sites_that_ship_no_such_rows() -> None:
    rng = Random(1)
    made = [device for _ in range(60) for device in with_near_names(random_site(rng), rng).devices.values()]
    assert any(device.title.endswith(" 2") for device in made) and any(not device.title.isascii() for device in made)
    assert not any("which_one" in row.kinds for row in generate_rows(load_site("home"), 300, 1))
