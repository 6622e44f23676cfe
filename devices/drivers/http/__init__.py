"""HTTP with JSON, Shelly included: the driver and its simulated peer."""
