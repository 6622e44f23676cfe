"""GPIO pins: the driver and its simulated peer."""
