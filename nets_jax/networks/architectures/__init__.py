"""Ready-made networks, a file for each family. `nets_jax.networks.zoo` has them by name."""
