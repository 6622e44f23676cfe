"""The shipped home as if its file said where each device stands."""

from __future__ import annotations

from devices.site.site import Area, Site, load_site

STANDS_IN = {
    "kitchen": ("kitchen_light",),
    "bedroom": ("bedroom_lamp",),
    "hall": ("hall_thermostat", "front_door", "hall_motion"),
    "living_room": ("living_blinds",),
    "bathroom": ("bathroom_fan",),
    "workshop": ("workshop_outlet",),
    "garage": ("garage_door",),
    "garden": ("porch_light", "garden_sprinkler", "garden_soil", "well_pump", "rain_tank"),
}
ALIASES = {"living_room": ("lounge",), "garden": ("yard",)}


def home_with_areas() -> Site:
    """Return the site."""
    site = load_site("home")
    areas = {name: Area(title=name.replace("_", " "), aliases=ALIASES.get(name, ())) for name in STANDS_IN}
    where = {device: area for area, devices in STANDS_IN.items() for device in devices}
    devices = {name: device.model_copy(update={"area": where[name]}) for name, device in site.devices.items()}
    return site.model_copy(update={"areas": areas, "devices": devices})
