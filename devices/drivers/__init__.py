"""Drivers over real protocols, one file each, and the peers that stand in for the devices in tests and by hand."""
