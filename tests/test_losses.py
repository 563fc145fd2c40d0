"""Losses and scores: against NumPy and scikit-learn, by name or of one's own, and what does not fit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as sklearn_metrics

import nets_jax
from nets_jax.baselines import scores as baselines
from nets_jax.data.dataset import Split
from nets_jax.evolution.fitness import fitness
from nets_jax.evolution.ranking import Feasible
from nets_jax.studies.methods import task_identity
from nets_jax.training import losses, scores
from nets_jax.training.evaluation import class_accuracies, evaluate
from nets_jax.training.measures import Measures, column_name, of_rows
from nets_jax.training.train import minibatch_order

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(60, 4))
LOGITS = RNG.normal(size=(12, 5)).astype(np.float32) * 3
CLASSES, LABELS = RNG.integers(0, 5, 12), RNG.integers(0, 2, (12, 5))
NUMBERS = RNG.normal(size=(12, 5)).astype(np.float32)


def numbers(columns=2, **settings):
  """A problem of regression: a linear map of the inputs."""
  targets = INPUTS @ RNG.normal(size=(4, columns)) * 7 + 100
  return nets_jax.from_arrays(INPUTS, targets, **settings)


def several():
  """A problem of three labels of each example."""
  return nets_jax.from_arrays(INPUTS, (INPUTS[:, :3] > 0).astype(int))


def classes():
  return nets_jax.from_arrays(INPUTS, (INPUTS[:, 0] > 0).astype(int))


def task_of(data, outputs=None, **settings):
  return nets_jax.Task(nets_jax.MLP((5,), outputs or data.num_outputs), data, **settings)


def one_by_one(loss, outputs, targets):
  return [loss(targets[i : i + 1], outputs[i : i + 1]) for i in range(len(targets))]


def softmax(logits):
  shifted = np.exp(logits - logits.max(1, keepdims=True))
  return shifted / shifted.sum(1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_cross_entropy_is_scikit_learns(smoothing):
  spread = (1 - smoothing) * np.eye(5)[CLASSES] + smoothing / 5
  want = -(spread * np.log(softmax(LOGITS.astype(np.float64)))).sum(1)
  np.testing.assert_allclose(losses.cross_entropy(LOGITS, CLASSES, smoothing), want, rtol=1e-4)
  if not smoothing:
    loss = sklearn_metrics.log_loss(CLASSES, softmax(LOGITS.astype(np.float64)), labels=range(5))
    np.testing.assert_allclose(want.mean(), loss, rtol=1e-5)


def test_binary_cross_entropy_is_scikit_learns():
  probabilities = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
  want = [sklearn_metrics.log_loss(LABELS[i], probabilities[i], labels=[0, 1]) for i in range(12)]
  np.testing.assert_allclose(losses.binary_cross_entropy(LOGITS, LABELS), want, rtol=1e-4)


def test_errors_are_scikit_learns():
  want = one_by_one(sklearn_metrics.mean_squared_error, LOGITS, NUMBERS)
  np.testing.assert_allclose(losses.squared_error(LOGITS, NUMBERS), want, rtol=1e-5)
  want = one_by_one(sklearn_metrics.mean_absolute_error, LOGITS, NUMBERS)
  np.testing.assert_allclose(scores.absolute_error(LOGITS, NUMBERS), want, rtol=1e-5)


def test_scores_of_labels_are_scikit_learns():
  guessed = (LOGITS > 0).astype(int)
  want = [1 - sklearn_metrics.hamming_loss(LABELS[i : i + 1], guessed[i : i + 1]) for i in range(12)]
  np.testing.assert_allclose(scores.label_accuracy(LOGITS, LABELS), want, rtol=1e-6)
  near = np.where(np.arange(12)[:, None] % 2, 1 - 2 * LABELS, 2 * LABELS - 1).astype(np.float32)
  match = scores.exact_match(near, LABELS)
  assert float(jnp.mean(match)) == sklearn_metrics.accuracy_score(LABELS, (near > 0).astype(int)) == 0.5
  np.testing.assert_array_equal(scores.accuracy(LOGITS, CLASSES), LOGITS.argmax(1) == CLASSES)


@settings(deadline=None, max_examples=30)
@given(
  arrays.arrays(np.float32, (3, 2), elements=st.floats(-100, 100, width=32)),
  arrays.arrays(np.float32, (3, 2), elements=st.floats(-100, 100, width=32)),
)
def test_an_error_is_nought_where_all_is_right_and_never_less(outputs, targets):
  for error in (losses.squared_error, scores.absolute_error):
    assert (np.asarray(error(outputs, targets)) >= 0).all()
    assert (np.asarray(error(targets, targets)) == 0).all()


@pytest.mark.parametrize(
  ("data", "kind", "outputs", "loss", "score"),
  [
    (classes(), "classes", 2, "cross_entropy", "accuracy"),
    (several(), "labels", 3, "binary_cross_entropy", "label_accuracy"),
    (numbers(), "numbers", 2, "squared_error", "absolute_error"),
    (nets_jax.from_arrays(INPUTS, INPUTS[:, 0]), "numbers", 1, "squared_error", "absolute_error"),
    (nets_jax.from_arrays(INPUTS, INPUTS[:, :1] > 0), "labels", 1, "binary_cross_entropy", "label_accuracy"),
  ],
)
def test_the_labels_say_what_they_are_and_what_loss_fits(data, kind, outputs, loss, score):
  task = task_of(data)
  task.check()
  assert (data.targets, data.num_outputs, task.loss, task.score) == (kind, outputs, loss, score)
  assert data.train.labels.dtype == (np.float32 if kind == "numbers" else np.int32)
  assert data.train.labels.shape[1:] == (() if kind == "classes" else (outputs,))


def test_an_evaluation_is_the_mean_over_a_split():
  data = several()
  task = task_of(data)
  weights = nets_jax.random_ticket(0, task.network, data.input_shape, 1.0).weights
  found = evaluate(task, weights, data.test)
  given = task.network.apply({"params": weights}, data.test.inputs)
  np.testing.assert_allclose(found.loss, np.mean(task.losses(given, data.test.labels)), rtol=1e-5)
  np.testing.assert_allclose(found.score, np.mean(task.scores(given, data.test.labels)), rtol=1e-5)


def test_numbers_are_in_deviations_of_the_training_part_and_can_be_undone():
  targets = np.random.default_rng(1).normal(size=(60, 2)) * [3, 50] + [10, -400]
  data, plain = (
    nets_jax.from_arrays(INPUTS, targets, standardise_targets=standardise) for standardise in (True, False)
  )
  np.testing.assert_allclose(data.train.labels.mean(0), 0, atol=1e-6)
  np.testing.assert_allclose(data.train.labels.std(0), 1, rtol=1e-5)
  np.testing.assert_allclose(data.in_units(data.test.labels), plain.test.labels, rtol=1e-4)
  np.testing.assert_allclose(data.target_mean, plain.train.labels.mean(0), rtol=1e-5)
  np.testing.assert_array_equal((plain.target_mean, plain.target_deviation), [[0, 0], [1, 1]])
  constant = nets_jax.from_arrays(INPUTS, np.full(60, 7.0))
  np.testing.assert_array_equal(constant.train.labels, 0)
  with pytest.raises(nets_jax.UsageError, match="in_units is of numbers to predict, but the targets are cla"):
    classes().in_units(np.zeros((1, 2)))


def test_a_loss_by_name_by_function_and_by_default_is_one_task():
  for data, loss, score in (
    (classes(), losses.cross_entropy, scores.accuracy),
    (numbers(), losses.squared_error, scores.absolute_error),
  ):
    made = [
      task_of(data),
      task_of(data, loss=loss, score=score),
      task_of(data, loss=loss.__name__, score=score.__name__),
    ]
    assert len({(task.loss, task.score) for task in made}) == 1
    assert len({str(task_identity(task)) for task in made}) == 1
  found = task_identity(task_of(classes()))
  assert not {"loss", "score", "label_smoothing"} & set(found)  # as ever, so that hashes on disk stay
  assert found["task"]["loss"] == "nets_jax.training.losses.cross_entropy"
  others = [dict(label_smoothing=0.1), dict(loss=abs), dict(score=abs), dict(score=abs, more_is_better=False)]
  assert len({str(task_identity(task_of(classes(), **own))) for own in [{}, *others]}) == 5


def test_label_smoothing_is_of_the_training_alone():
  smooth, plain = task_of(classes(), label_smoothing=0.2), task_of(classes())
  logits, labels = LOGITS[:, :2], CLASSES % 2
  want = losses.cross_entropy(logits, labels, 0.2)
  np.testing.assert_array_equal(smooth.training_losses(logits, labels), want)
  np.testing.assert_array_equal(smooth.losses(logits, labels), plain.losses(logits, labels))
  np.testing.assert_array_equal(plain.training_losses(logits, labels), plain.losses(logits, labels))


def error_of(outputs, targets):
  return jnp.max(jnp.abs(outputs - targets), axis=-1)


def named_as(name):
  """A function of one's own with the name of one of ours."""

  def own(outputs, targets):
    return error_of(outputs, targets)

  own.__name__ = name
  return own


def scaled(outputs, targets, factor):
  return factor * error_of(outputs, targets)


def test_a_loss_and_a_score_of_ones_own():
  task = task_of(
    numbers(), loss=functools.partial(scaled, factor=2.0), score=error_of, more_is_better=False, epochs=2
  )
  assert task.measures == Measures("scaled", "error_of", False)
  ticket = nets_jax.random_ticket(0, task.network, task.data.input_shape, 1.0)
  last = nets_jax.train_tickets(0, ticket, task).curves[-1]
  assert last["test_loss"] == pytest.approx(2 * last["test_error_of"], rel=1e-5)
  shadows = task_of(numbers(), loss=named_as("cross_entropy"), score=named_as("absolute_error"))
  assert shadows.measures == Measures("own_cross_entropy", "own_absolute_error", True)
  assert (
    task_of(classes(), score=named_as("accuracy")).measures.record()["measures"]["score"] == "own_accuracy"
  )
  assert shadows.replace(score="mine:accuracy").measures.shown(93.0) == "93"
  assert not of_rows([{"test_own_absolute_error": 1.0}]).is_known
  named = task_of(numbers(), score=lambda outputs, targets: error_of(outputs, targets))
  assert named.measures == Measures("squared_error", "score", True)
  assert task_of(numbers(), score="stranger.losses:within").measures.score == "within"


@pytest.mark.parametrize(
  ("score", "data"),
  [
    (baselines.snip, numbers()),
    (baselines.grasp, numbers()),
    (baselines.snip, several()),
    (baselines.snip, classes()),
  ],
)
def test_saliencies_are_of_the_loss_that_is_trained(score, data):
  task = task_of(data, label_smoothing=0.3 if data.targets == "classes" else 0.0)
  ticket = nets_jax.random_ticket(0, task.network, data.input_shape, 1.0, initialiser=0.5)
  inputs, labels = data.train.inputs[:9], data.train.labels[:9]
  found = score(task, ticket.weights, ticket.masks, Split(inputs, labels))

  def loss(weights):
    outputs = task.network.apply({"params": weights}, inputs)
    if data.targets == "classes":
      spread = 0.7 * jax.nn.one_hot(labels, 2) + 0.15
      return -jnp.mean(jnp.sum(spread * jax.nn.log_softmax(outputs), -1))
    if data.targets == "labels":
      return -jnp.mean(jax.nn.log_sigmoid(jnp.where(labels == 1, outputs, -outputs)))
    return jnp.mean((outputs - labels) ** 2)

  def flow(weights):
    return 0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(jax.grad(loss)(weights)))

  by_snip = score is baselines.snip
  gradient = jax.grad(loss if by_snip else flow)(ticket.weights)
  for name, layer in found.items():
    want = gradient[name]["kernel"] * ticket.weights[name]["kernel"]
    np.testing.assert_allclose(layer["kernel"], jnp.abs(want) if by_snip else want, rtol=2e-3, atol=1e-5)


def test_of_a_loss_without_a_known_size_a_lower_one_is_fitter_however_large():
  """Targets in their own units: squared errors of far more than what is too dense begins at."""
  data = nets_jax.from_arrays(INPUTS, INPUTS[:, 0] * 1e4 + 1e5, standardise_targets=False)
  task = task_of(data, training=nets_jax.Training(learning_rate=1e-12, batch_size=10))
  order = minibatch_order(jax.random.key(0), len(data.train), 10, 2)
  go = jax.jit(lambda ticket: fitness(jax.random.key(0), ticket, task, order, Feasible(0.5))[0])
  made = [nets_jax.random_ticket(0, task.network, data.input_shape, d) for d in (0.2, 1.0)]
  made.append(made[0].replace(weights=jax.tree.map(lambda leaf: leaf + 20.0, made[0].weights)))
  sparse, dense, worse = map(go, made)
  assert float(sparse.valid_loss) != float(worse.valid_loss)
  assert (sparse.fitness < worse.fitness) == (sparse.valid_loss < worse.valid_loss)
  assert float(sparse.fitness) < 1000 < float(dense.fitness)


def one_output(outputs, labels):
  return -outputs[:, 0] * (2 * labels - 1)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: task_of(numbers(), loss="cross_entropy"), "loss cross_entropy is of classes .* give loss=squ"),
    (lambda: task_of(classes(), loss="squared_error"), "loss squared_error is of numbers .* give loss=cross"),
    (lambda: task_of(several(), loss="cross_entropy"), "give loss=binary_cross_entropy, or leave loss out"),
    (lambda: task_of(several(), score="accuracy"), "give score=label_accuracy, or leave score out"),
    (lambda: task_of(classes(), loss="hinge"), "loss must be one of cross_entropy, .* not 'hinge'"),
    (lambda: task_of(classes(), score="acuracy"), "not 'acuracy'; did you mean accuracy"),
    (lambda: task_of(numbers(), label_smoothing=0.1), "label_smoothing is a setting of cross_entropy, which"),
    (lambda: task_of(classes(), label_smoothing=1.0), r"label_smoothing must be in \[0, 1\), not 1.0"),
    (lambda: task_of(numbers(), more_is_better=True), "of absolute_error, less is better anyway; leave it"),
    (lambda: task_of(numbers(), 3), r"MLP has 3 outputs, but the data have 2 number\(s\) to predict"),
    (lambda: task_of(several(), 2), r"MLP has 2 outputs, but the data have 3 label\(s\) of each example"),
    (
      lambda: task_of(classes(), 1, loss=one_output),
      "the score accuracy does not fit: .* give a score of yo",
    ),
    (lambda: task_of(classes(), loss=lambda o, t: o), r"gives numbers of shape \(3, 2\); take the mean over"),
    (lambda: task_of(classes(), loss=lambda o, t: None), "for 3 examples it gives a NoneType"),
    (
      lambda: task_of(classes(), score=lambda o, t: o.no),
      r"failed for outputs and labels of the shapes \[3, 2\], \[3\]: Attrib",
    ),
    (lambda: task_of(classes(), loss="stranger.losses:huber"), "TypeError: huber.. takes 1 positional"),
    (lambda: task_of(classes(), loss="stranger.losses:pinball"), r"shapes \[3, 2\], \[3\]: \w+Error"),
    (lambda: task_of(classes(), loss="stranger.losses:CONSTANT"), "is no function of outputs and targets"),
    (lambda: task_of(classes().replace(targets="numbers")), "the data say that their labels are numbers"),
    (lambda: task_of(classes().replace(targets="words")), "targets of a data set must be one of classes, "),
  ],
)
@pytest.mark.usefixtures("stranger")
def test_what_does_not_fit_is_one_line(make, message):
  with pytest.raises(nets_jax.UsageError, match=message) as raised:
    make().check()
  assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("stranger")
def test_a_loss_without_an_output_for_each_class_asks_for_a_score():
  task_of(classes(), 1, loss=one_output, score=one_output).check()
  task_of(numbers(), loss="stranger.losses:huber(delta=0.5)", score="stranger.losses:farthest").check()


@pytest.mark.parametrize(
  ("labels", "message"),
  [
    (np.arange(60).reshape(30, 2), "training labels of several columns must be 0 or 1, or floats"),
    (np.zeros(30, bool), "training labels must be integers from 0, or floats to predict"),
    (np.array(["a"] * 30), "training labels must be integers from 0, or floats to predict"),
    (np.zeros((30, 2, 1)), r"training labels have the shape \(30, 2, 1\)"),
    (np.zeros((30, 0)), r"training labels have the shape \(30, 0\)"),
    (np.full(30, np.inf), "training labels must be finite"),
  ],
)
def test_labels_of_no_kind(labels, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.from_arrays(INPUTS[:30], labels)


def test_a_test_part_of_another_kind_or_width():
  parts = INPUTS[:30], INPUTS[:30, 0], INPUTS[30:]
  with pytest.raises(nets_jax.UsageError, match=r"training labels are numbers .* but test labels classes"):
    nets_jax.from_arrays(*parts, np.zeros(30, int))
  with pytest.raises(nets_jax.UsageError, match="training labels have 1 columns, but test labels 2"):
    nets_jax.from_arrays(*parts, np.zeros((30, 2)))
  with pytest.raises(nets_jax.UsageError, match="standardise_targets is of numbers to predict, but the lab"):
    nets_jax.from_arrays(INPUTS, np.zeros(60, int), standardise_targets=False)
  with pytest.raises(nets_jax.UsageError, match="labels are too large for float32 numbers"):
    nets_jax.from_arrays(INPUTS, np.full(60, 1e300), standardise_targets=False)


ONE_HOT = np.eye(3, dtype=int)[np.arange(60) % 3]


@pytest.mark.parametrize(
  ("labels", "line"),
  [
    (ONE_HOT, "every row of the labels has a single 1; they are taken as several labels of each example; if"),
    (ONE_HOT == 1, "every row of the labels has a single 1"),
    (np.where(np.arange(60)[:, None] == 7, 1, ONE_HOT), ""),
    (ONE_HOT[:, :1] | 1, ""),
    (np.arange(60) % 3, ""),
    (np.arange(60) % 3 + 1, "1 of 4 classes have no example, class 0 the first of them; each has an output"),
    (np.arange(60) % 3 * 2, "2 of 5 classes have no example, class 1 the first of them"),
    (np.arange(60) % 3.0, "the labels are floats, so they are taken as numbers to predict, though all are"),
    (ONE_HOT.astype(np.float32), "the labels are floats, so they are taken as numbers to predict"),
    (np.arange(60) % 3.0 + 0.5, ""),
    (np.arange(60) % 3.0 - 1, ""),
    (np.arange(60) % 21.0, ""),
  ],
)
def test_what_looks_like_classes_in_another_form_is_said(labels, line, capsys):
  nets_jax.from_arrays(INPUTS, labels)
  said = capsys.readouterr().err
  assert said.startswith(line)
  assert said.count("\n") == bool(line)
  assert any(remedy in said for remedy in ("integers [examples]", "from 0 without gaps")) == bool(line)


def test_accuracies_by_class_are_of_classes():
  task = task_of(numbers())
  with pytest.raises(
    nets_jax.UsageError, match="class_accuracies is of classes, but the data's labels are n"
  ):
    class_accuracies(task, {}, task.data.test)


def test_columns_tell_the_score():
  assert of_rows([{"valid_loss": 1.0, "valid_accuracy": 0.5}]) == of_rows([]) == Measures()
  assert of_rows([{"density": 1, "test_loss": 1.0}]) == Measures()
  assert of_rows([{"test_loss": 1, "test_absolute_error": 1}]) == Measures(
    "squared_error", "absolute_error", False
  )
  assert of_rows([{"valid_loss": 1, "valid_label_accuracy_interval": 1, "test_label_accuracy": 1}]) == (
    Measures("binary_cross_entropy", "label_accuracy", True)
  )
  for score in ("loss_ratio", "losses", "own_interval_score"):
    assert of_rows([{"valid_loss": 1.0, "valid_loss_interval": 1.0, f"valid_{score}": 1.0}]).score == score
  assert (column_name("my_interval"), column_name("loss")) == ("my_interval_score", "loss_score")
  assert set(scores.SCORES) == {name for name in scores.SCORES if Measures(score=name).is_known}
  for measures in (Measures(), Measures("squared_error", "absolute_error", False)):
    assert Measures.of_record(measures.record()) == measures


def test_which_way_is_better_is_not_guessed_without_a_word(capsys):
  assert of_rows([{"test_own": 1.0}]).more_is_better
  assert capsys.readouterr().err == ""
  of_rows([{"test_absolute_error": 1.0}], directed=True)
  assert capsys.readouterr().err == ""
  of_rows([{"test_own": 1.0}], directed=True)
  assert capsys.readouterr().err.startswith(
    "more of own is taken to be better, for rows do not say; give mea"
  )
