"""Convolutions and pooling as products and slices: values and gradients are XLA's own, in every form."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from nets_jax.engine import convolutions, patches
from nets_jax.engine.cpu_forms import FORMS, with_cpu_forms

KEY = jax.random.key(0)
LAYOUTS = (("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("HWNC", "OHWI", "NCHW"))


def everything(function, *arguments):
  """Of a function of arrays: its value, the gradients of a sum of its sines, and their tangents."""

  def loss(*arguments):
    return jnp.sum(jnp.sin(function(*arguments)))

  gradient = jax.grad(loss, range(len(arguments)))
  return lambda *given: (function(*given), *jax.jvp(gradient, given, given))


def assert_close(found, expected):
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert one.shape == other.shape
    assert one.dtype == other.dtype
    scale = max(float(jnp.max(jnp.abs(other), initial=0)), 1)
    assert np.isfinite(scale)
    np.testing.assert_allclose(one / scale, other / scale, atol=1e-5)


def assert_as_xla(function, *arguments, reference=None):
  """Ours is XLA's; `reference` is the same in a form in which XLA is right."""
  found = jax.jit(with_cpu_forms(everything(function, *arguments)))(*arguments)
  assert_close(found, jax.jit(everything(reference or function, *arguments))(*arguments))


def operations(function, *arguments, platform="cpu"):
  """The program as it is lowered for a platform, in words."""
  return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


def is_rewritten(function, *arguments):
  """Whether no convolution is left: these have too few channels for one."""
  return "stablehlo.convolution" not in operations(function, *arguments)


@st.composite
def convolutions_of_all_kinds(draw):
  def both(low, high):
    return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

  groups, per_group, outputs = draw(st.sampled_from([(1, 3, 4), (2, 2, 3), (3, 1, 2), (4, 1, 1)]))
  window, dilation, between = both(1, 3), both(1, 2), both(1, 2)
  size = [max(n, (k - 1) * d + 1) for n, k, d in zip(both(4, 7), window, dilation, strict=True)]
  return {
    "images": (draw(st.sampled_from([1, 4])), *size, groups * per_group),
    "kernel": (*window, per_group, groups * outputs),
    "window_strides": both(1, 3),
    "padding": tuple((draw(st.integers(-1, 2)), draw(st.integers(0, 2))) for _ in range(2)),  # as lax.pad
    "lhs_dilation": between,
    "rhs_dilation": dilation,
    "feature_group_count": groups,
    "layout": draw(st.sampled_from(LAYOUTS)),
  }


def padded_first(convolve, layout, *, padding, lhs_dilation, **kind):
  """The same of images padded before: where padding cuts off, XLA is wrong on CPUs."""
  by_axis = dict(zip("HW", zip(padding, lhs_dilation, strict=True), strict=True))
  pads = [(*by_axis[a][0], by_axis[a][1] - 1) if a in by_axis else (0, 0, 0) for a in layout]
  nothing = jnp.zeros((), jnp.float32)
  return lambda x, w: convolve(lax.pad(x, nothing, pads), w, padding="VALID", **kind)


@settings(max_examples=25, deadline=None)
@given(kind=convolutions_of_all_kinds(), block=st.sampled_from([1, 2**20]), many=st.sampled_from([1, 16]))
def test_a_convolution_is_xlas_value_gradients_and_their_tangents(kind, block, many):
  images, kernel, layout = kind.pop("images"), kind.pop("kernel"), kind.pop("layout")
  rows = [jax.random.normal(jax.random.fold_in(KEY, i), shape) for i, shape in enumerate((images, kernel))]
  rows = [
    jnp.transpose(x, [usual.index(axis) for axis in own])
    for x, usual, own in zip(rows, ("NHWC", "HWIO"), layout, strict=False)
  ]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(patches, "BLOCK_BYTES", block)  # one image at a time, or all of them
    patch.setattr(convolutions, "MANY_CHANNELS", many)
    patch.setattr(patches, "FEW_CHANNELS", min(many, 2))
    jax.clear_caches()
    convolve = functools.partial(lax.conv_general_dilated, dimension_numbers=layout)
    assert_as_xla(
      lambda x, w: convolve(x, w, **kind), *rows, reference=padded_first(convolve, layout[0], **kind)
    )


@pytest.mark.parametrize("axes", [1, 3])
def test_any_number_of_axes(axes):
  images, kernel = (
    (jax.random.normal(KEY, (2, *(5,) * axes, 2))),
    jax.random.normal(KEY, (*(3,) * axes, 2, 3)),
  )
  layout = lax.ConvDimensionNumbers(
    (0, axes + 1, *range(1, axes + 1)), (axes + 1, axes, *range(axes)), (0, axes + 1, *range(1, axes + 1))
  )
  assert_as_xla(
    lambda x, w: lax.conv_general_dilated(x, w, (2,) * axes, "SAME", dimension_numbers=layout), images, kernel
  )


def test_a_convolution_of_a_population_on_a_cpu():
  """`vmap` makes it one of groups."""
  images, kernels = jax.random.normal(KEY, (3, 2, 5, 5, 2)), jax.random.normal(KEY, (3, 3, 3, 2, 4))
  assert_as_xla(
    jax.vmap(lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=LAYOUTS[0])),
    images, kernels,
  )  # fmt: skip


@pytest.mark.parametrize("pool", [nn.max_pool, nn.avg_pool, lambda x, *how: -nn.max_pool(-x, *how)])
@pytest.mark.parametrize(
  "how",
  [((2, 2), (2, 2)), ((3, 3), (2, 2), "SAME"), ((3, 2), (1, 2)), ((2, 2), (2, 2), [(1, 0), (1, 1)])],
)
def test_pooling_is_xlas_with_equal_entries_too(pool, how):
  images = jnp.round(jax.random.normal(KEY, (2, 7, 7, 3)))  # of few values, so that many are equal
  assert_as_xla(lambda x: pool(x * 1.0, *how), images)


def test_minima_and_dilated_windows():
  images = jax.random.normal(KEY, (2, 7, 7, 3))
  assert_as_xla(lambda x: lax.reduce_window(x, jnp.inf, lax.min, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"), images)
  dilated = lambda x: lax.reduce_window(  # noqa: E731
    x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 1, 1), "VALID", (1, 2, 1, 1), (1, 2, 3, 1)
  )
  assert_as_xla(dilated, images)


def test_a_window_with_a_nan_chooses_as_xla_does():
  images = jax.random.normal(KEY, (2, 4, 4, 3)).at[0, 0, 0, 0].set(jnp.nan).at[1, 1, 1, 2].set(jnp.nan)
  whole = jax.value_and_grad(lambda x: jnp.sum(nn.max_pool(x, (2, 2), (2, 2))))
  found, expected = with_cpu_forms(whole)(images), whole(images)
  np.testing.assert_array_equal(found[0], expected[0])
  np.testing.assert_array_equal(found[1], expected[1])


def test_what_has_no_fast_form_is_left_to_xla():
  integers = jnp.arange(2 * 4 * 4 * 1).reshape(2, 4, 4, 1)
  pool = lambda x: lax.reduce_window(x, jnp.iinfo(x.dtype).min, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")  # noqa: E731
  np.testing.assert_array_equal(with_cpu_forms(pool)(integers), pool(integers))
  convolve = lambda x: lax.conv(x, jnp.ones((1, 1, 2, 2), x.dtype), (1, 1), "VALID")  # noqa: E731
  for images in (integers.reshape(2, 1, 4, 4), jnp.zeros((0, 1, 4, 4)), jnp.ones((2, 1, 4, 4)) * 1j):
    np.testing.assert_array_equal(with_cpu_forms(convolve)(images), convolve(images))
  assert with_cpu_forms(convolve)(jnp.zeros((2, 1, 1, 1))).shape == (2, 1, 0, 0)
  three = lambda x: lax.conv(x, jnp.ones((1, 1, 3, 3)), (1, 1), "VALID")  # noqa: E731
  assert with_cpu_forms(three)(jnp.zeros((2, 1, 1, 4))).shape == (2, 1, 0, 2)
  small = jnp.ones((1, 1, 1, 1))
  pooled = lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")  # noqa: E731
  assert with_cpu_forms(pooled)(small).shape == pooled(small).shape == (1, 0, 0, 1)


@jax.custom_jvp
def _twice(x):
  return 2 * lax.conv(x, jnp.ones((1, 1, 2, 2)), (1, 1), "SAME")


_twice.defjvp(lambda given, tangents: (_twice(*given), 3 * tangents[0]))


def _in_loops(x):
  """A convolution in a scan in a branch in a while loop, rematerialised, with rules of its own."""
  convolve = lambda x: lax.conv(x, jnp.full((1, 1, 3, 3), 0.1), (1, 1), "SAME")  # noqa: E731

  def body(carry):
    i, x = carry
    loop = lambda x: lax.scan(lambda x, _: (jax.jit(convolve)(x), None), x, None, length=2)[0]  # noqa: E731
    return i + 1, lax.cond(i == 0, loop, jnp.sin, x)

  x = lax.while_loop(lambda carry: carry[0] < 2, body, (0, x))[1]
  return x + _twice(x)


def test_it_reaches_into_loops_branches_and_rules():
  images = jax.random.normal(KEY, (2, 1, 4, 4))
  assert_close(jax.jit(with_cpu_forms(_in_loops))(images), _in_loops(images))
  assert is_rewritten(with_cpu_forms(_in_loops), images)

  def differentiated(x):
    kept = jax.checkpoint(lambda x: jnp.sin(_twice(lax.conv(x, jnp.ones((1, 1, 2, 2)), (1, 1), "SAME"))))
    return jax.grad(lambda x: jnp.sum(kept(x)))(x)

  assert_close(
    jax.jit(with_cpu_forms(differentiated))(images), differentiated(images)
  )  # by the rule: 3, not 2
  assert is_rewritten(with_cpu_forms(differentiated), images)


@pytest.mark.parametrize("groups", [1, 4])
def test_short_numbers_are_summed_in_long_ones(groups, monkeypatch):
  """Of bfloat16 no sum over images, blocks or entries is rounded before its end."""
  monkeypatch.setattr(patches, "BLOCK_BYTES", 1)
  jax.clear_caches()
  images, kernel = jax.random.normal(KEY, (64, 6, 6, 4)), jax.random.normal(KEY, (3, 3, 4 // groups, 4))

  def gradient(images, kernel):
    convolve = functools.partial(lax.conv_general_dilated, window_strides=(1, 1), padding="SAME")
    one = lambda w: jnp.sum(  # noqa: E731
      convolve(images, w, dimension_numbers=LAYOUTS[0], feature_group_count=groups), dtype=jnp.float32
    )
    return jax.grad(one)(kernel), convolve(
      images, kernel, dimension_numbers=LAYOUTS[0], feature_group_count=groups
    )

  short = [x.astype(jnp.bfloat16) for x in (images, kernel)]
  exact = gradient(*(x.astype(jnp.float32) for x in short))
  for found, wanted in zip(with_cpu_forms(gradient)(*short), exact, strict=True):
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(
      found.astype(jnp.float32), wanted, rtol=2**-8, atol=0.004 * jnp.abs(wanted).max()
    )


def test_a_solver_over_a_convolution():
  """Its programs have names."""
  images, kernel = jax.random.normal(KEY, (1, 1, 4, 4)), jnp.zeros((1, 1, 3, 3)).at[0, 0, 1, 1].set(2.0)
  solve = lambda b: jax.scipy.sparse.linalg.cg(lambda x: lax.conv(x, kernel, (1, 1), "SAME"), b)[0]  # noqa: E731
  np.testing.assert_allclose(with_cpu_forms(solve)(images), images / 2, rtol=1e-5)


def test_large_windows_are_left_to_xla():
  images = jnp.ones((1, 20, 20, 2))
  pooled = with_cpu_forms(lambda x: nn.avg_pool(x, (20, 20)))
  assert "reduce_window" in operations(pooled, images)


def test_an_accelerator_convolves_and_pools_itself():
  images, kernel = jnp.ones((2, 4, 4, 1)), jnp.ones((3, 3, 1, 2))

  def loss(kernel, images):
    convolved = lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=LAYOUTS[0])
    return jnp.sum(nn.max_pool(convolved, (2, 2), (2, 2)))

  gradient = with_cpu_forms(jax.grad(loss))
  of = {name: operations(gradient, kernel, images, platform=name) for name in ("cpu", "cuda", "tpu")}
  for operation in ("stablehlo.convolution", "stablehlo.select_and_scatter"):
    assert operation not in of["cpu"]
    assert operation in of["cuda"]
    assert operation in of["tpu"]


def test_a_program_without_them_is_the_program_it_was():
  def program(x):
    return lax.scan(lambda x, _: (jax.nn.relu(x @ x), None), x, None, length=3)[0], jax.random.key(0)

  x = jnp.eye(3)
  assert str(jax.make_jaxpr(with_cpu_forms(program))(x)) == str(jax.make_jaxpr(program)(x))


def test_each_form_stands_for_an_operation_of_jax():
  assert all(hasattr(lax, f"{name}_p") for name in FORMS)
