"""A stranger's package: a network, data, a search and an operator that nets_jax knows nothing of."""
