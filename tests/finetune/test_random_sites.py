"""Random sites: what makes a model copy names instead of recognizing them."""

from __future__ import annotations

from random import Random

from finetune.random_sites import NOUNS, PLACES, random_name, random_site


def test_some_names_are_words_that_mean_nothing() -> None:
    rng = Random(3)
    names = [random_name(rng, "fan") for _ in range(4000)]
    share = sum(place not in PLACES for place, _ in names) / len(names)
    noun_share = sum(noun not in NOUNS["fan"] for _, noun in names) / len(names)
    assert 0.12 < share < 0.18 and 0.05 < noun_share < 0.10
    assert len({place for place, _ in names if place not in PLACES}) > 400


def test_a_random_site_is_the_same_for_the_same_seed_and_names_its_devices_apart() -> None:
    one, same = random_site(Random("a")), random_site(Random("a"))
    assert one == same
    assert all(name == device.title.replace(" ", "_") for name, device in one.devices.items())
