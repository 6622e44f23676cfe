"""Programs on the box as devices: the driver and its simulated peer."""
