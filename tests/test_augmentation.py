"""What a training sees in place of its images: by the key of its minibatches and the step alone."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from conftest import assert_same_bits, assert_same_results
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checkpoints import in_pieces

import nets_jax
from nets_jax.baselines.one_shot import Snip, prune_at_initialisation
from nets_jax.data import augmentation
from nets_jax.data.augmentation import chain, crop, cutout, flip
from nets_jax.evolution.generation import genome_fitness
from nets_jax.training.evaluation import evaluate
from nets_jax.training.train import advance, minibatch_order, start, train

KEY = jax.random.key(5)
NO_SIZES = {"crop_padding": None, "cutout_size": None}
SEARCH = nets_jax.recipes.paper(population_size=4, generations=1)
ALL = {"augment": "crop,flip,cutout", "crop_padding": 1, "cutout_size": 3}


def nothing(key, images):
  return None


def narrowed(key, images):
  return images[:, :2]


def broken(key, images):
  raise RuntimeError("out of\npaper")


def pictures(count=6, height=5, width=7, channels=2, seed=0):
  return np.random.default_rng(seed).normal(size=(count, height, width, channels)).astype(np.float32)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.sampled_from((1, 4)))
def test_a_crop_moves_each_image_and_fills_with_zero(seed, padding):
  key, images = jax.random.key(seed), pictures(seed=seed)
  corners = np.asarray(jax.random.randint(key, (6, 2), 0, 2 * padding + 1))
  want = np.zeros_like(images)
  for i, y, x, c in np.ndindex(images.shape):
    from_y, from_x = y + corners[i, 0] - padding, x + corners[i, 1] - padding
    if 0 <= from_y < 5 and 0 <= from_x < 7:
      want[i, y, x, c] = images[i, from_y, from_x, c]
  np.testing.assert_array_equal(crop(key, images, padding), want)
  assert corners.min() >= 0
  assert corners.max() <= 2 * padding


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 1000))
def test_a_flip_mirrors_half_of_the_images(seed):
  key, images = jax.random.key(seed), pictures(seed=seed)
  mirrored = np.asarray(jax.random.bernoulli(key, shape=(6, 1, 1, 1))).ravel()
  want = images.copy()
  for i, y, x in np.ndindex(images.shape[:3]):
    if mirrored[i]:
      want[i, y, x] = images[i, y, 6 - x]
  np.testing.assert_array_equal(flip(key, images), want)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.sampled_from((1, 4)))
def test_cutout_zeroes_a_square_that_may_lie_over_the_edge(seed, size):
  key, images = jax.random.key(seed), pictures(seed=seed)
  middles = np.asarray(jax.random.randint(key, (6, 2), 0, jnp.array([[5, 7]])))
  assert (middles < [5, 7]).all()
  want = images.copy()
  for i, (y, x) in enumerate(middles):
    for row in range(y - size // 2, y - size // 2 + size):
      for column in range(x - size // 2, x - size // 2 + size):
        if 0 <= row < 5 and 0 <= column < 7:
          want[i, row, column] = 0
  np.testing.assert_array_equal(cutout(key, images, size), want)


def test_every_place_of_a_crop_and_a_square_is_as_likely():
  """All of the (2 padding + 1)^2 windows, half mirrored, every pixel a middle: of 4,000 images."""
  images = np.ones((4000, 3, 3, 1), np.float32)
  kinds, counts = np.unique(np.asarray(crop(KEY, images, 1)).reshape(4000, -1), axis=0, return_counts=True)
  assert len(kinds) == 9
  assert np.abs(counts - 4000 / 9).max() < 100
  kinds, counts = np.unique(np.asarray(cutout(KEY, images, 1)).reshape(4000, -1), axis=0, return_counts=True)
  assert len(kinds) == 9
  assert np.abs(counts - 4000 / 9).max() < 100
  slope = np.broadcast_to(np.arange(3, dtype=np.float32)[None, None, :, None], images.shape)
  assert abs(np.asarray(flip(KEY, slope))[:, 0, 0, 0].mean() - 1) < 0.08


def test_a_chain_gives_each_a_key_of_its_own():
  images = pictures()
  both = chain(("crop", flip, "cutout"), {"crop_padding": 2, "cutout_size": 3})(KEY, images)
  keys = [jax.random.fold_in(KEY, i) for i in range(3)]
  want = cutout(keys[2], flip(keys[1], crop(keys[0], images, 2)), 3)
  np.testing.assert_array_equal(both, want)
  defaults = chain(("crop", "cutout"), NO_SIZES)(KEY, images)
  np.testing.assert_array_equal(defaults, cutout(keys[1], crop(keys[0], images, 4), 8))


@pytest.fixture(scope="module")
def images():
  """A small problem of pictures, of three classes."""
  rng = np.random.default_rng(2)
  labels = rng.integers(0, 3, 150)
  return nets_jax.from_arrays(pictures(3, 5, 5, 2)[labels] + pictures(150, 5, 5, 2, seed=1), labels)


@pytest.fixture(scope="module")
def task(images):
  training = nets_jax.Training(learning_rate=0.2, batch_size=9, **ALL)
  return nets_jax.Task(nets_jax.MLP((8,), 3), images, training, epochs=1)


@pytest.fixture(scope="module")
def plain(task):
  return task.replace(training=nets_jax.Training(learning_rate=0.2, batch_size=9))


@pytest.fixture(scope="module")
def ticket(task):
  return nets_jax.random_ticket(jax.random.key(3), task.network, task.data.input_shape, 0.6)


def seen_in_training(task, order, order_key):
  """The augmented images of each step [steps, batch, ...], by the documented keys."""
  augment = chain(task.training.augment, {"crop_padding": 1, "cutout_size": 3})
  drawn_by = jax.random.fold_in(order_key, np.uint32(2**32 - 2))
  inputs = np.asarray(task.data.train.inputs)
  return np.stack([augment(jax.random.fold_in(drawn_by, t), inputs[rows]) for t, rows in enumerate(order)])


def test_a_training_sees_the_images_of_its_minibatches_key(task, ticket):
  """A reference that is given these images beforehand trains to the same weights."""
  order = np.asarray(minibatch_order(KEY, len(task.data.train), 9, 12))
  trained = jax.jit(lambda key: train(key, ticket, task, order, KEY).weights)(jax.random.key(0))
  seen = seen_in_training(task, order, KEY).reshape(108, 5, 5, 2)
  labels = np.asarray(task.data.train.labels)[order].ravel()
  want = reference.sgd(reference.layers(ticket), seen, labels, np.arange(108).reshape(12, 9), 0.2)
  for (kernel, bias, _), name in zip(want, ("hidden_0", "output"), strict=True):
    np.testing.assert_allclose(trained[name]["kernel"], kernel, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trained[name]["bias"], bias, rtol=1e-4, atol=1e-5)


def test_all_genomes_see_the_same_images_unless_each_draws_its_own(task, ticket):
  """So two genomes that are one have one fitness, wherever they stand."""
  order = minibatch_order(KEY, len(task.data.train), 9, 6)

  def losses(task, *order_keys):
    def fitness(index, order_key):
      return genome_fitness(jax.random.key(1), index, ticket, task, order, SEARCH, order_key)[0]

    run = jax.jit(jax.vmap(fitness, (0, None)))
    return [np.asarray(run(jnp.arange(3), key).valid_loss) for key in order_keys]

  shared, others = losses(task, KEY, jax.random.key(6))
  assert len(set(shared)) == 1
  assert others[0] != shared[0]
  (apart,) = losses(task.replace(training=task.training.replace(augment_apart=True)), KEY)
  assert len(set(apart)) == 3


def test_a_generation_draws_by_the_key_of_its_shuffles(task):
  from nets_jax.evolution.generation import generation_keys, init, step

  search = nets_jax.Nets(population_size=3, generations=1, operators=())
  layout = nets_jax.make_layout(3, devices=1)
  state = init(KEY, task, search, layout)
  _, metrics = step(state, task, search, layout)
  shuffles, trainings, _ = generation_keys(state.key, state.generation)
  order = minibatch_order(shuffles, len(task.data.train), 9, task.steps_per_epoch)
  fitness = jax.jit(genome_fitness)
  for i in range(3):
    genome = nets_jax.take(state.population, i)
    want, _ = fitness(trainings, i, genome, task, order, search, shuffles)
    np.testing.assert_allclose(metrics.valid_loss[i], want.valid_loss, rtol=1e-5)


def test_without_augmentation_the_keys_program_is_what_it_was(plain, ticket):
  order = minibatch_order(KEY, len(plain.data.train), 9, 2)
  programs = {
    str(jax.make_jaxpr(lambda key, own=own: train(key, ticket, plain, order, own).weights)(KEY))
    for own in (None, KEY)
  }
  assert len(programs) == 1


def test_evaluations_and_scores_at_initialisation_see_plain_images(task, plain, ticket):
  """Their programs are those of a task without augmentation."""
  programs = []
  for each in (task, plain):

    def prune(key, data, own=each):
      return prune_at_initialisation(key, own.replace(data=data), Snip(score_batch=30))

    programs.append(str(jax.make_jaxpr(lambda own=each: evaluate(own, ticket.weights, own.data.test))()))
    programs.append(str(jax.make_jaxpr(prune)(KEY, each.data)))
  assert programs[:2] == programs[2:]


def test_a_training_that_augments_needs_a_key(task, ticket):
  with pytest.raises(nets_jax.UsageError, match=r"give the key of its minibatches: order_key=\.\.\.$"):
    advance(KEY, start(ticket, task), ticket.masks, task, np.zeros((1, 9), np.int32))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"augment": "crop,flop"}, r"must be of crop, flip, cutout, or .*, not 'flop'; did you mean flip\?"),
    ({"augment": (5,)}, r"augment must be of crop, .*, not 5"),
    ({"augment": 5}, r"augment must be of crop, .*, not 5"),
    ({"augment": "flip", "crop_padding": 2}, r"crop_padding is of crop, which is not in augment; add it, or"),
    ({"cutout_size": 3}, r"cutout_size is of cutout, which is not in augment; add it, or leave cutout_size"),
    ({"augment": "crop", "crop_padding": 0}, r"crop_padding must be at least 1, not 0"),
    ({"augment": "crop", "crop_padding": 6}, r"crop_padding must be at most 5, the images' smaller side, no"),
    ({"augment": "cutout"}, r"cutout_size must be at most 5, the images' smaller side, not 8"),
    (
      {"augment_apart": True},
      r"augment_apart says how .* are drawn; give augment, or leave it out",
    ),
    ({"augment": (nothing,)}, r"nothing must give images as it takes them, float32\[9, 5, 5, 2\], not None"),
    ({"augment": narrowed}, r"narrowed must give .*, float32\[9, 5, 5, 2\], not float32\[9, 2, 5, 2\]"),
    ({"augment": [broken]}, r"augment: \S+broken failed: RuntimeError: paper; mend it"),
    ({"augment": "stranger.data:Nothing"}, r"stranger.data has no 'Nothing'"),
    ({"augment": "stranger.__main__:no"}, r"there is no module 'stranger.__main__'"),
    ({"augment": "stranger.augmentations:noisy(size=3)"}, r"it takes no argument 'size', but scale"),
    ({"augment": "stranger.augmentations:jax"}, r"jax is a module, not a function \(key, images\) -> images"),
  ],
)
@pytest.mark.usefixtures("stranger")
def test_impossible_augmentations_are_one_line(plain, changes, message):
  with pytest.raises(nets_jax.UsageError, match=message) as raised:
    plain.replace(training=plain.training.replace(**changes)).check()
  assert "\n" not in str(raised.value)


def test_what_is_no_image_is_refused_but_for_functions_of_ones_own(data):
  task = nets_jax.Task(nets_jax.MLP((4,), 3), data, nets_jax.Training(augment="flip"))
  with pytest.raises(nets_jax.UsageError, match=r"flip is of images \[height, .*\], not of .*\[6\]"):
    task.check()
  task.replace(training=nets_jax.Training(augment=lambda key, inputs: -inputs)).check()


def test_records_and_names(plain):
  """Names are read and written alike; a list may have signs of plus; a record tells augmentations apart."""
  assert augmentation.NAMES.parse("crop, flip,mine:make(a=[1,2],b='x,+')") == (
    "crop", "flip", "mine:make(a=[1,2],b='x,+')",
  )  # fmt: skip
  assert augmentation.NAMES.parse("crop+cutout") == ("crop", "cutout")
  assert augmentation.NAMES.write(("crop", "mine:noise")) == "crop,mine:noise"
  made = [nets_jax.Training(augment=own) for own in (None, "crop", "flip", ["crop", "flip"], narrowed)]
  made += [nets_jax.Training(augment="crop", crop_padding=2), nets_jax.Training(augment=lambda k, x: x + 1)]
  made += [nets_jax.Training(augment=lambda k, x: x + 2)]
  records = [json.dumps(training.record()) for training in made]
  assert len(set(records)) == len(made)
  assert "0x" not in "".join(records)
  assert nets_jax.Training(augment="") == nets_jax.Training(augment=[]) == nets_jax.Training()


@pytest.mark.usefixtures("stranger")
def test_from_the_command_line(job, tmp_path):
  """With functions of one's own among them, as the run's flagfile says."""
  own = "crop,stranger.augmentations:upside_down,stranger.augmentations:noisy(scale=0.2)"
  given = ("--dataset=digits", "--devices=1", "--search=random", "--hidden_sizes=5", "--train_epochs=1")
  status, _, error = job(*given, f"--augment={own}", "--crop_padding=2", "--workdir=a")
  assert status == 0, error
  assert f"--augment={own}\n--crop_padding=2\n" in (tmp_path / "a" / "run.flags").read_text()
  status, _, error = job(*given, "--cutout_size=3", "--workdir=d")
  assert (status, error) == (
    2, "error: cutout_size is of cutout, which is not in augment; add it, or leave cutout_size out\n"
  )  # fmt: skip


@pytest.mark.devices
def test_the_same_images_on_any_number_of_devices_and_beside_other_runs(task):
  keys = jax.random.split(KEY, 2)
  together = nets_jax.search_all(keys, task, SEARCH, devices=2)
  assert_same_results(nets_jax.search_all(keys, task, SEARCH, devices=1), together)
  assert_same_results([nets_jax.search(keys[1], task, SEARCH, devices=1, chunk=2)], together[1:])


@pytest.mark.devices
@pytest.mark.parametrize("apart", [False, True])
def test_a_training_in_pieces_sees_the_images_of_the_whole(tmp_path, task, apart):
  task = task.replace(eval_every=3, training=task.training.replace(augment_apart=apart))
  tickets = [nets_jax.random_ticket(jax.random.key(i), task.network, (5, 5, 2), 0.5) for i in range(3)]

  def run(saved):
    return nets_jax.train_tickets(KEY, tickets, task, steps=20, checkpoints=saved)

  whole = run(None)
  pieces, stops = in_pieces(run, tmp_path)
  assert stops >= 2
  assert_same_bits(pieces.weights, whole.weights)
  alone = nets_jax.train_tickets(KEY, tickets[1], task, steps=20)
  assert_same_bits(jax.tree.map(lambda leaf: leaf[0], alone.weights), nets_jax.take(whole.weights, 1))


@pytest.mark.devices
def test_imp_in_pieces_sees_the_images_of_the_whole(tmp_path, task):
  imp = nets_jax.Imp(cycles=2, cycle_epochs=2, rewind_steps=5)

  def run(saved):
    return nets_jax.search_all(jax.random.split(KEY, 2), task, imp, checkpoints=saved)

  whole = run(None)
  pieces, stops = in_pieces(run, tmp_path)
  assert stops >= 2
  assert_same_results(pieces, whole)
