"""Training rows with other tools than the site's, so that a model learns to read its tools and not to remember them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from devices.site.device import Device
from devices.site.renaming import renamed
from devices.site.site import Site
from finetune.data.random_sites import random_site

DISTRACTORS = (2, 5)  # devices


@dataclass(frozen=True)
class Variety:
    """Shares of the states conversations start from: what is other there than on the site.

    Attributes:
        renamed: kinds, actions and arguments have other names (devices/site/renaming.py).
        distractors: there are other devices beside the site's, with tools of their own.
        shuffled: devices, and with them tools and lines of the state, stand in another order.
    """

    renamed: float = 0.0
    distractors: float = 0.0
    shuffled: float = 0.0

    def vary(self, site: Site, rng: Random) -> Site:
        """Return the site, or another with the same devices in it. Chance is asked only for shares above 0."""
        varied = site
        if self.renamed and rng.random() < self.renamed:
            varied = renamed(varied, rng)
        if self.distractors and rng.random() < self.distractors:
            varied = varied.model_copy(update={"devices": _strangers(varied, rng) | varied.devices})
        if self.shuffled and rng.random() < self.shuffled:
            names = list(varied.devices)
            rng.shuffle(names)
            varied = varied.model_copy(update={"devices": {name: varied.devices[name] for name in names}})
        return varied


def _strangers(site: Site, rng: Random) -> dict[str, Device]:
    """Return other devices, without any that could be meant by a name of the site's, or waits for one left out."""
    taken = {name.lower() for device in site.devices.values() for name in device.names}
    strangers = {}
    for name, device in random_site(rng, DISTRACTORS).devices.items():
        aliases = tuple(alias for alias in device.aliases if " " in alias)  # not the noun alone
        if " " in device.title and not taken & {name.lower() for name in (device.title, *aliases)}:
            strangers[name] = device.model_copy(update={"aliases": aliases, "area": ""})  # its area is not here
    return {name: device for name, device in strangers.items() if _read_by(device) <= strangers.keys()}


def _read_by(device: Device) -> set[str]:
    """Return the devices that a device's interlocks read."""
    required = [one.property for action in device.actions.values() for one in action.requires]
    return {reference.partition(".")[0] for reference in required}
