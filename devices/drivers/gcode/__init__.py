"""G-code machines that run Grbl: the driver and its simulated peer."""
