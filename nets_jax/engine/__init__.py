"""Devices, hosts, files, checkpoints: the only code that knows of them."""
