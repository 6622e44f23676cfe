"""The MQTT door, and how the box shows up in Home Assistant through it."""
