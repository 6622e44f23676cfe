"""Sites from and for other systems: Home Assistant, zigbee2mqtt, Tasmota, Shelly, Things, OpenAI tools, register maps.

In: device lists of others, and what this machine has.
Out: site files, and a site in the words of others.
May import: site and drivers.
"""
