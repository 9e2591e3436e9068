"""Devices and processes: which GPU, one process each, what they exchange, whether the other hosts live."""
