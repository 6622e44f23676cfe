"""I2C sensors: the driver and its simulated peer."""
