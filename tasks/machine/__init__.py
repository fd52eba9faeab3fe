"""This machine: devices, cores, settings, its terminal."""
