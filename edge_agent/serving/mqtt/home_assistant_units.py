"""Home Assistant's words for what a number or a truth is of: units, device classes, state classes.

Source: Home Assistant, "Sensor" and "Binary sensor" (device classes and the units that each takes).
"""

from __future__ import annotations

from typing import Any

from devices.site.schema import DataSchema

SYMBOLS = {
    "percent": "%",
    "degrees Fahrenheit": "°F",
    "lux": "lx",
    "watts": "W",
    "kilowatts": "kW",
    "watt hours": "Wh",
    "kilowatt hours": "kWh",
    "volts": "V",
    "amperes": "A",
    "hertz": "Hz",
    "hectopascals": "hPa",
    "decibels": "dB",
    "seconds": "s",
    "minutes": "min",
    "hours": "h",
    "meters": "m",
    "millimetres": "mm",
    "kelvin": "K",
}
CLASS_OF_UNIT = {
    "°C": "temperature",
    "°F": "temperature",
    "lx": "illuminance",
    "W": "power",
    "kW": "power",
    "Wh": "energy",
    "kWh": "energy",
    "V": "voltage",
    "A": "current",
    "Hz": "frequency",
    "hPa": "pressure",
    "dB": "sound_pressure",
    "s": "duration",
    "min": "duration",
    "h": "duration",
    "m": "distance",
    "mm": "distance",
}
CLASS_OF_NAME = {
    ("humidity", "%"): "humidity",
    ("moisture_pct", "%"): "moisture",
    ("moisture", "%"): "moisture",
    ("battery", "%"): "battery",
    ("co2", "ppm"): "carbon_dioxide",
    ("pm25", "µg/m³"): "pm25",
    ("pm10", "µg/m³"): "pm10",
    ("voc", "ppb"): "volatile_organic_compounds_parts",
}
TRUTHS = {
    "motion": "motion",
    "occupied": "occupancy",
    "open": "opening",
    "smoke": "smoke",
    "wet": "moisture",
    "gas": "gas",
    "carbon_monoxide": "carbon_monoxide",
    "vibration": "vibration",
    "tamper": "tamper",
    "battery_low": "battery",
    "moving": "moving",
    "running": "running",
}


def unit_symbol(name: str, schema: DataSchema) -> str:
    """Return the unit of a property as Home Assistant writes it, "" if it has none. Degrees may be of an angle."""
    if schema.unit == "degrees":
        return "°C" if name.endswith("_c") or "temp" in name else "°"
    return SYMBOLS.get(schema.unit, schema.unit)


def sensor_facts(name: str, schema: DataSchema) -> dict[str, Any]:
    """Return the options of a sensor that say what its values are."""
    if schema.type == "string":
        return {"device_class": "enum", "options": list(schema.enum or ())}
    unit = unit_symbol(name, schema)
    class_ = CLASS_OF_NAME.get((name, unit)) or CLASS_OF_UNIT.get(unit)
    facts = {"state_class": "total_increasing" if class_ == "energy" else "measurement"}
    facts |= {"unit_of_measurement": unit} if unit else {}
    return facts | ({"device_class": class_} if class_ else {})


def truth_facts(name: str) -> dict[str, Any]:
    """Return the options of a binary sensor that say what its truth is of."""
    return {"device_class": TRUTHS[name]} if name in TRUTHS else {}
