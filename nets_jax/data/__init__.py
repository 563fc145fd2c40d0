"""Data sets as arrays in memory: `dataset` (splits, standardisation), `sources` (by name), `tfds`."""
