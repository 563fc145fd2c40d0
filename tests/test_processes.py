import jax
import pytest

import nets_jax
from nets_jax.engine import hosts


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("localhost:1234", 2, None), "go together; give all three"),
    ((None, None, 0), "go together; give all three"),
    (("localhost:1234", 2, 2), "process_id must be from 0 to 1, not 2"),
    (("localhost", 2, 0), "coordinator_address must be host:port, not 'localhost'"),
    (("localhost:99999", 2, 1), "no answer from process 0 at localhost:99999"),
    ((), "cannot join the processes of a run: jax.distributed.initialize"),
  ],
)
def test_processes_that_cannot_be_joined(monkeypatch, arguments, message):
  monkeypatch.setattr(hosts, "JOIN_SECONDS", 0)
  monkeypatch.setattr(jax.config, "update", lambda name, value: None)
  with pytest.raises(nets_jax.UsageError, match=message):
    hosts.join(*arguments)


def test_alone_everything_is_the_first_process():
  assert hosts.is_primary()
  assert hosts.primary_first(lambda: 7) == 7
