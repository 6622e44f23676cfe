"""Sites from and for other systems: Home Assistant, zigbee2mqtt, Tasmota, Shelly, Thing Descriptions, OpenAI tools.

In: device lists of others, and what this machine has.
Out: site files, and a site in the words of others.
May import: site and drivers.
"""
