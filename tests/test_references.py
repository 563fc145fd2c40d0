"""`package.module:name(argument=value)` as a text: read, written, and cut apart from its neighbours."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nets_jax
from nets_jax import plugins

TEXTS = st.text(alphabet="ab'\"(){}[],:=@\\ \né", max_size=8)
LITERALS = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | TEXTS,
  lambda inner: st.lists(inner, max_size=2) | st.tuples(inner) | st.dictionaries(TEXTS, inner, max_size=2),
  max_leaves=3,
)


@given(st.dictionaries(st.sampled_from(["a", "width", "with_", "x1"]), LITERALS, max_size=3))
def test_a_reference_is_read_as_it_is_written(arguments):
  text = plugins.write("one.two:Three.four", arguments)
  assert plugins.parse(text) == ("one.two", "Three.four", arguments)
  assert plugins.parse(str(plugins.parse(text))) == plugins.parse(text)
  assert plugins.split(f"{text},{text}", ",") == [text, text]


@given(st.text(alphabet="ab.:()='\"[]{},_1 *\\", max_size=20))
def test_any_text_is_a_reference_or_a_usage_error(text):
  assert ",".join(plugins.split(text, ",")) == text
  if plugins.is_reference(text):
    with contextlib.suppress(nets_jax.UsageError):  # its arguments are none
      assert plugins.parse(text).module.replace(".", "").isidentifier()
  else:
    with pytest.raises(nets_jax.UsageError, match="names nothing of a module"):
      plugins.parse(text)
