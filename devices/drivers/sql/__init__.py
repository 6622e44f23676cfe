"""Read-only SQL: the driver and its simulated peer."""
