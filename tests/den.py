"""A site with levels, steps, scenes and an area."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from devices.site.site import Site, load_site

TEXT = """
schema: site/v1
name: den
title: a den
areas: {den: , hall: }
scenes:
  movie_night:
    aliases: [cinema]
    devices:
      lamp: {"on": true, brightness: dim}
      fan: {speed: low}
      heating: {mode: heat, target_c: 21}
      player: {state: playing}
  bedtime:
    devices:
      lamp: {"on": false}
      front_door: {locked: true}
      garage: {position: 100}
devices:
  lamp:
    model: dimmable_light
    area: den
    properties: {brightness: {levels: {dim: 20, half: 50, bright: 100}}}
  desk_lamp: {model: light, area: den}
  fan:
    model: fan
    area: den
    properties: {speed: {levels: {low: 1, medium: 2, high: 3}}}
  heating:
    model: [thermostat, mode]
    area: hall
    actions: {set: {input: {target_c: {type: number, step: 0.5}}}}
  player: {model: [media_player, media_volume], area: den}
  front_door: {model: lock, area: hall}
  garage: {model: door}
"""


@cache
def den() -> Site:
    """Return the site."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "den.yaml"
        path.write_text(TEXT, encoding="utf-8")
        return load_site(path)
