import jax
import numpy as np
import pytest

import nets_jax
from nets_jax.engine.seeds import key_of_seed


def data_of(seed):
  return np.asarray(jax.random.key_data(key_of_seed(seed))).tolist()


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1])
def test_a_seed_of_32_bits_is_jaxs_own(seed):
  assert data_of(seed) == np.asarray(jax.random.key_data(jax.random.key(np.uint32(seed)))).tolist()


def test_all_64_bits_count():
  seeds = [1, 2**32 + 1, 2**33 + 1, 2**63 + 1, 2**64 - 1, 2**32 - 1, 0, 2**32]
  assert len({tuple(data_of(seed)) for seed in seeds}) == len(seeds)
  assert data_of(np.uint64(2**64 - 1)) == data_of(2**64 - 1)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "1", None])
def test_other_seeds_are_refused(seed):
  message = "seed must be a whole number from 0 to 2\\^64 - 1, not "
  with pytest.raises(nets_jax.UsageError, match=message):
    key_of_seed(seed)
  arrays = np.zeros((40, 2)), np.arange(40) % 2
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.from_arrays(*arrays, seed=seed)
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.load_data("xor", seed=seed)
