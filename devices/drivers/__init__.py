"""Drivers over real protocols, a folder for each with the simulated peer that answers it in tests and by hand."""
