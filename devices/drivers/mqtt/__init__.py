"""MQTT, zigbee2mqtt and Tasmota: the driver and its simulated peer."""
