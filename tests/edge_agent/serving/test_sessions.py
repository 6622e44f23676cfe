"""Conversations of a served box: confirmations, clients that go away, turns at the engine, and news."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from devices.errors import RefusedError, UsageError
from devices.site.tools import Command
from edge_agent.engine.engine import Limits, Request
from edge_agent.serving import session as sessions
from edge_agent.serving.engine_queue import Cancellation, Cancelled, EngineQueue
from edge_agent.serving.hub import Hub
from tests.edge_agent.serving.conftest import ScriptedEngine

UNLOCK = Command("front_door", "unlock", {})


def is_locked(hub: Hub) -> bool:
    return bool(hub.state()["front_door"]["locked"])


def wait_until(check: object, limit_s: float = 5.0) -> None:
    end_s = time.monotonic() + limit_s
    while not check():  # type: ignore[operator]
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_a_request_moves_a_device_and_tells_what_was_read_back(hub: Hub) -> None:
    turn = hub.open_session("a").ask("kitchen light on")
    assert turn.answer == "The kitchen light is on."
    assert [one.status for one in turn.outcomes] == ["done"]
    assert hub.state()["kitchen_light"]["on"] is True
    assert turn.to_json()["actions"][0]["device"] == "kitchen_light"


@pytest.mark.parametrize("words", ["yes", "Yes, please.", "ok", "go ahead", "yes do it", "I confirm"])
def test_a_yes_in_words_counts_once(hub: Hub, words: str) -> None:
    mine = hub.open_session("a")
    turn = mine.ask("unlock the front door")
    assert turn.answer == "Please confirm that the front door should be unlocked." and is_locked(hub)
    assert turn.confirmations[0].effect == "front door: locked = unlocked"
    assert mine.ask(words).answer == "The front door is unlocked."
    assert not is_locked(hub)
    mine.command(Command("front_door", "lock", {}))
    assert mine.ask(words).outcomes == () and is_locked(hub)


@pytest.mark.parametrize("words", ["yes but not now", "yesterday", "no", "kitchen light on", "is it ok?"])
def test_other_words_are_no_yes(hub: Hub, words: str) -> None:
    mine = hub.open_session("a")
    mine.ask("unlock the front door")
    mine.ask(words)
    assert is_locked(hub)
    mine.ask("yes")
    assert is_locked(hub)


def test_a_confirmation_belongs_to_its_session_and_its_minute(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = hub.open_session("a"), hub.open_session("a")
    wanted = mine.ask("unlock the front door").confirmations[0]
    with pytest.raises(RefusedError, match="nothing waits"):
        other.confirm(wanted.id, is_yes=True)
    other.ask("yes")
    with pytest.raises(RefusedError):
        mine.confirm("x" * 24, is_yes=True)
    assert is_locked(hub)
    assert mine.confirm(wanted.id, is_yes=True).answer == "The front door is unlocked."
    with pytest.raises(RefusedError):
        mine.confirm(wanted.id, is_yes=True)
    mine.command(Command("front_door", "lock", {}))
    late = mine.command(UNLOCK).confirmations[0]
    later_s = time.monotonic() + 61
    monkeypatch.setattr("edge_agent.serving.session.time.monotonic", lambda: later_s)
    with pytest.raises(RefusedError):
        mine.confirm(late.id, is_yes=True)
    assert is_locked(hub)


def test_a_no_leaves_it_and_takes_the_confirmation(hub: Hub) -> None:
    mine = hub.open_session("a")
    wanted = mine.command(UNLOCK).confirmations[0]
    assert mine.confirm(wanted.id, is_yes=False).answer == sessions.LEFT
    with pytest.raises(RefusedError):
        mine.confirm(wanted.id, is_yes=True)


def test_one_of_two_is_confirmed_and_the_other_still_waits(hub: Hub) -> None:
    mine = hub.open_session("a")
    first, second = mine.commands([UNLOCK, Command("garage_door", "open", {})]).confirmations
    assert mine.confirm(second.id, is_yes=True).confirmations == (first,)
    assert is_locked(hub)
    assert mine.confirm(first.id, is_yes=True).outcomes[0].status == "done"


def test_calls_fit_their_schemas_or_are_an_error(hub: Hub) -> None:
    mine = hub.open_session("a")
    assert mine.call("light_brightness", {"device": "kitchen_light", "brightness": 40}).outcomes[0].status == "done"
    for name, arguments in (("nothing", {}), ("light_brightness", {"device": "kitchen_light", "brightness": 400})):
        with pytest.raises(UsageError):
            mine.call(name, arguments)
    assert mine.command(Command("kitchen_light", "fly", {})).outcomes[0].status == "refused"
    with pytest.raises(UsageError):
        mine.ask("  ")


def test_who_goes_away_gets_nothing_done(hub: Hub, engine: ScriptedEngine) -> None:
    engine.hold.clear()
    mine, gone = hub.open_session("a"), Cancellation()
    failed: list[Exception] = []

    def ask() -> None:
        try:
            mine.ask("kitchen light on", gone)
        except Cancelled as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: mine.is_busy)
    gone.cancel()
    thread.join(5)
    assert failed and hub.state()["kitchen_light"]["on"] is False
    engine.hold.set()
    assert mine.ask("kitchen light on").answer == "The kitchen light is on."


def test_a_stop_ends_what_was_asked_before_it(hub: Hub, engine: ScriptedEngine) -> None:
    engine.hold.clear()
    mine, failed = hub.open_session("a"), list[str]()

    def ask() -> None:
        try:
            mine.ask("kitchen light on")
        except Cancelled as error:
            failed.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: hub.queue._is_busy)
    hub.stop()
    engine.hold.set()
    thread.join(5)
    assert failed == ["I did nothing more, because everything was stopped meanwhile"]
    assert hub.state()["kitchen_light"]["on"] is False
    assert mine.ask("kitchen light on").answer == "The kitchen light is on."


def test_clients_take_turns_at_the_engine(engine: ScriptedEngine) -> None:
    engine.hold.clear()
    queue = EngineQueue(engine)  # type: ignore[arg-type]
    order: list[str] = []

    def ask(client: str, number: int) -> None:
        queue.generate(Request(f"{client}{number}", None, Limits(10, 30)), client, Cancellation())
        order.append(f"{client}{number}")

    threads = []
    for number, client in enumerate(["a", "a", "a", "a", "b"]):
        threads.append(threading.Thread(target=ask, args=(client, number)))
        threads[-1].start()
        wait_until(lambda so_far=number: queue.figures.waiting == so_far)
    engine.hold.set()
    for thread in threads:
        thread.join(5)
    assert engine.prompts == ["a0", "b4", "a1", "a2", "a3"]
    assert queue.figures.replies == 5 and queue.figures.waiting == 0


def test_a_request_whose_time_is_over_in_the_queue_is_an_error(engine: ScriptedEngine) -> None:
    engine.hold.clear()
    queue = EngineQueue(engine)  # type: ignore[arg-type]
    gone = Cancellation()

    def hold() -> None:
        with pytest.raises(Cancelled):
            queue.generate(Request("first", None, Limits(10, 30)), "a", gone)

    thread = threading.Thread(target=hold)
    thread.start()
    wait_until(lambda: queue._is_busy)
    with pytest.raises(Exception, match="no time"):
        queue.generate(Request("second", None, Limits(10, 0.05)), "b", Cancellation())
    gone.cancel()
    thread.join(5)
    assert queue.figures.waiting == 0


def test_the_next_prompt_is_begun_while_nobody_waits(hub: Hub, engine: ScriptedEngine) -> None:
    mine = hub.open_session("a")
    mine.ask("kitchen light on")
    wait_until(lambda: engine.prefilled)
    mine.ask("hello")
    assert "kitchen_light: on=true" in engine.prefilled[0]
    assert engine.prompts[-1].startswith(engine.prefilled[0])


def test_old_sessions_make_room(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.serving.hub.MOST_SESSIONS", 3)
    first = hub.open_session("a")
    others = [hub.open_session("a") for _ in range(3)]
    assert hub.sessions == 3
    with pytest.raises(UsageError, match="no such session"):
        hub.session(first.id)
    assert hub.session(others[-1].id) is others[-1]


def test_listeners_hear_of_the_journal_and_the_state(hub: Hub) -> None:
    async def listen() -> list[str]:
        kinds = []
        with hub.feed.listening() as listener:
            await asyncio.get_running_loop().run_in_executor(None, hub.open_session("a").ask, "kitchen light on")
            async for news in listener:
                kinds.append(news.body.get("event", news.kind))
                if {"DONE", "state"} <= set(kinds):
                    return kinds
        return kinds

    kinds = asyncio.run(asyncio.wait_for(listen(), 10))
    assert kinds[:3] == ["PROPOSED", "STARTED", "DONE"]


def test_stop_and_health(hub: Hub) -> None:
    hub.open_session("a").command(Command("well_pump", "run", {"seconds": 60}))
    assert hub.state()["well_pump"]["running"] is True
    assert hub.stop() == []
    assert hub.state()["well_pump"]["running"] is False
    health = hub.health()
    assert health["status"] == "ok" and health["devices"] == len(hub.site.devices)
    hub.doors["mqtt"] = "the broker is down"
    assert hub.health()["status"] == "degraded"


def test_timed_outputs_end_by_themselves_in_real_time(hub: Hub) -> None:
    turn = hub.open_session("a").command(Command("well_pump", "run", {"seconds": 5}))
    assert turn.outcomes[0].status == "done", turn.answer
    assert hub.runtime.world
    hub.runtime._pass_time(6.0)  # type: ignore[misc]  # as if it had passed
    wait_until(lambda: hub.state()["well_pump"]["running"] is False)
