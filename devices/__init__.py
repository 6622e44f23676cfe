"""What exists on a site and how to touch it: sites, tools, broker, journal, drivers, simulator."""
