"""Modbus TCP and RTU: the driver and its simulated peer."""
