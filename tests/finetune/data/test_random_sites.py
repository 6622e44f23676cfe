"""Random sites: what makes a model copy names instead of recognizing them."""

from __future__ import annotations

from collections import Counter
from random import Random

from devices.site.phrasings import load_phrasings
from finetune.data.random_sites import random_name, random_site

WORDS = load_phrasings()


def test_some_names_are_words_that_mean_nothing() -> None:
    rng = Random(3)
    names = [random_name(rng, "fan") for _ in range(4000)]
    share = sum(place not in WORDS.places for place, _ in names) / len(names)
    noun_share = sum(noun not in WORDS.nouns["fan"] for _, noun in names) / len(names)
    assert 0.12 < share < 0.18 and 0.05 < noun_share < 0.10
    assert len({place for place, _ in names if place not in WORDS.places}) > 400


def test_a_random_site_is_the_same_for_the_same_seed_and_names_its_devices_apart() -> None:
    one, same = random_site(Random("a")), random_site(Random("a"))
    assert one == same
    assert all(name == device.title.replace(" ", "_") for name, device in one.devices.items())


def test_models_are_drawn_by_their_weights() -> None:
    weights = {"light": 30.0, "siren": 0.0}
    devices = [one for seed in range(60) for one in random_site(Random(seed), (4, 8), weights).devices.values()]
    kinds = Counter(device.kind for device in devices)
    assert kinds["light"] > 0.25 * len(devices) and "siren" not in kinds


def test_some_devices_are_no_building_s_and_know_records_by_number() -> None:
    rng = Random(1)
    devices = [device for _ in range(300) for device in random_site(rng).devices.values()]
    kinds = {"arm", "order", "ticket", "product", "customer"}
    assert kinds <= {device.kind for device in devices}
    known = [device for device in devices if "find" in device.actions]
    assert 0.04 < len(known) / len(devices) < 0.12
    for device in known:
        assert device.records
        for name, schema in device.actions["find"].output.items():
            assert not schema.problem_with(device.records[0][name])


def test_some_devices_are_called_by_their_noun_alone() -> None:
    names = [name for seed in range(100) for name in random_site(Random(seed)).devices]
    assert 0.08 < sum("_" not in name for name in names) / len(names) < 0.2
    assert any(name in WORDS.other_nouns["robot_arm"] for name in names)
