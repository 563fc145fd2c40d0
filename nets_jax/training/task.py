"""What a ticket is for: a network, data, a loss and a score, how it begins and is trained. Said once."""

import flax.linen as nn
import jax

from nets_jax import plugins, settings, structs
from nets_jax.data.dataset import Dataset
from nets_jax.errors import UsageError
from nets_jax.kinds import (
  ANY,
  NUMBER,
  SWITCH,
  TEXT,
  WHOLE,
  WORDS,
  Rule,
  at_least,
  check_hashable,
  choice,
  describe,
  one_of,
)  # fmt: skip
from nets_jax.networks import layer_rules
from nets_jax.networks.adapter import Network, check_network, name_of, with_tuples
from nets_jax.networks.initialisation import INITIALISERS, Initialiser, Normal, as_initialiser
from nets_jax.networks.interface import check_inputs
from nets_jax.networks.layer_rules import LayerDensities, own_counts
from nets_jax.networks.layers import Layer, find_layers
from nets_jax.networks.maskable import RULES, Chooser, as_rule
from nets_jax.networks.precision import PRECISIONS, has_precision, precision_of
from nets_jax.settings import check_parts, part, setting
from nets_jax.structs import Struct
from nets_jax.training import losses, objectives
from nets_jax.training.losses import LOSSES, Loss
from nets_jax.training.measures import Measures
from nets_jax.training.scores import SCORES, Score
from nets_jax.training.training import Training, steps_per_epoch


@structs.dataclass
class Task(Struct):
  """What a ticket is for. Every search, the final training, the verdict and the controls take it.

  A study may replace `training` and `initialiser` for one method, each at its own best, and nothing else.

  Attributes:
    network: a `flax.linen` module, or a `Functional`; see `networks.adapter` (static).
    data: what it is trained, scored and tested on.
    training: optimiser, learning rate, batch and augmentation.
    initialiser: draws the initial weights; also by its name, a standard deviation, or weights that are there
      already, as those of a ticket.
    epochs: of the final training.
    eval_every: iterations between its evaluations; None is an epoch.
    loss: whose mean is minimised: a name in `losses.LOSSES`, a function `(outputs [batch, ...], labels) ->
      [batch]` of one's own, or `package.module:function`; None is that of the data's targets (static).
    score: likewise, of `scores.SCORES`; its mean is reported beside the loss, in columns of its name
      (static).
    precision: of the final training's matrix products; a search has its own (static).
    compact: whether a training of tickets leaves out their dead units; see `tickets.compaction` (static).
    dense_layers: names of layers that keep every weight, or patterns such as `hidden_*` (static).
    layer_densities: densities of single layers by name or pattern, of which the first that fits counts; or a
      function `(name, shape) -> None | density` (static). Their counts are exact in every method. A target
      density is that of all layers together: the others keep its count less theirs.
    maskable: what a mask covers: `kernels`, `kernels+embeddings`, or a function `(path, shape) -> bool` of
      one's own (static); see `networks.maskable`.
    mask_pattern: of every mask, `2:4`, say; None is none; see `tickets.patterns` (static).
    label_smoothing: of `cross_entropy`, in training alone; what is reported is without (static).
    more_is_better: of a score of one's own, whether more is better; None is that it is (static).
  """

  network: Network = structs.field(pytree_node=False)
  data: Dataset
  training: Training = part(Training, base=Training)
  initialiser: Initialiser = part(
    Normal, "Distribution of initial weights; module is the network's own initialisers.",
    group="first population", flag="init", options=INITIALISERS, base=Initialiser,
  )  # fmt: skip
  epochs: int = setting(
    50, "Epochs of the final training; 0 searches only.", group="training", kind=WHOLE, rule=at_least(0),
    static=True, flag="train_epochs",
  )  # fmt: skip
  eval_every: int | None = setting(
    None, "Iterations between evaluations of the final training; default an epoch.", group="training",
    kind=WHOLE, rule=at_least(1), static=True, flag="eval_every",
  )  # fmt: skip
  loss: str | Loss | None = setting(
    None,
    "Loss that is minimised, or package.module:function of your own; default that of the data's labels.",
    group="training", kind=plugins.choice(tuple(LOSSES)), rule=ANY, static=True, flag="loss",
  )  # fmt: skip
  score: str | Score | None = setting(
    None,
    "Score beside the loss, or package.module:function of your own; default that of the data's labels.",
    group="training", kind=plugins.choice(tuple(SCORES)), rule=ANY, static=True, flag="score",
  )  # fmt: skip
  precision: str = setting(
    "float32", "Of the matrix products in the final training.", group="machine",
    kind=choice(tuple(PRECISIONS)),
    rule=one_of(tuple(PRECISIONS)), static=True, flag="train_precision",
  )  # fmt: skip
  compact: bool = setting(
    True, "Train tickets without their dead units, where that is faster.", group="machine", kind=SWITCH,
    static=True, flag="compact",
  )  # fmt: skip
  dense_layers: tuple[str, ...] | None = setting(
    None, "Layers that keep every weight: names, or patterns such as hidden_*.", group="network", kind=WORDS,
    rule=ANY, static=True, flag="dense_layers",
  )  # fmt: skip
  layer_densities: LayerDensities | None = setting(
    None,
    "Densities of single layers, as in output=0.5,hidden_*=0.1; a target density is of all layers together.",
    group="network", kind=layer_rules.DENSITIES, rule=layer_rules.IS_DENSITY, static=True,
    flag="layer_densities",
  )  # fmt: skip

  mask_pattern: str | None = setting(
    None, "Pattern of every mask: 2:4, at_most_2:4, block_4x4 or unit.", group="network", kind=TEXT,
    rule=ANY, static=True, flag="mask_pattern",
  )  # fmt: skip
  maskable: str | Chooser = setting(
    "kernels", "What a mask covers, or package.module:function of your own.", group="network",
    kind=plugins.choice(tuple(RULES)), rule=ANY, static=True, flag="maskable",
  )  # fmt: skip
  label_smoothing: float = setting(
    0.0, "cross_entropy: share of each label that goes to all classes alike, in training.", group="training",
    kind=NUMBER, rule=Rule("in [0, 1)", lambda share: 0 <= share < 1), static=True, flag="label_smoothing",
  )  # fmt: skip
  more_is_better: bool | None = setting(
    None, "Of a score of your own: whether more is better; default it is.", group="training", kind=SWITCH,
    static=True, flag="more_is_better",
  )  # fmt: skip

  def __post_init__(self):
    """Makes tuples of the network's lists, so that it can be compared; takes a scale, an optimiser's name.

    Loss and score are by their names from here on, those of the data where none are given.
    """
    for name, usual in objectives.usual(self.data).items():
      known = LOSSES if name == "loss" else SCORES
      object.__setattr__(self, name, objectives.as_named(getattr(self, name), known, usual))
    object.__setattr__(self, "dense_layers", layer_rules.as_names(self.dense_layers))
    object.__setattr__(self, "layer_densities", layer_rules.as_densities(self.layer_densities))
    object.__setattr__(self, "network", with_tuples(self.network))
    if isinstance(self.initialiser, int | float | tuple | list | str | dict):
      object.__setattr__(self, "initialiser", as_initialiser(self.initialiser))
    if isinstance(self.training, str):
      object.__setattr__(self, "training", Training(self.training))

  def check(self) -> None:
    """Raises UsageError for what makes no training, one line each."""
    check_network(self.network)
    check_inputs(self.network, self.data.input_shape, self.data.train.input_type)
    check_parts(self)
    for name in ("loss", "score", "maskable", "layer_densities"):
      check_hashable(name, getattr(self, name))
    self.training.check(len(self.data.train))
    batch = (self.training.batch_size, *self.data.input_shape)
    self.training.check_images(jax.ShapeDtypeStruct(batch, self.data.train.input_type))
    settings.check(self.replace(training=Training()))  # the training's own are checked
    if precision_of(self.network) != "float32":
      raise UsageError(
        "give the precision to the task (of the final training) or the search, not to the network"
      )
    self.at_precision(self.precision)
    objectives.check(self.network, self.data, self.loss, self.score,
      label_smoothing=self.label_smoothing, more_is_better=self.more_is_better,
    )  # fmt: skip
    self.initialiser.fitted(self.network, self.data.input_shape, self.layers)
    self.training.check_layers(self.free_layers)

  def record(self) -> dict[str, object]:
    """What of a task, besides its data, training and initialiser, a checkpoint is of."""
    found = {"network": describe(self.network)}
    for name, chosen, known in (("loss", self._loss, LOSSES), ("score", self._score, SCORES)):
      found[name] = describe(known[chosen] if isinstance(chosen, str) and chosen in known else chosen)
    smoothed = {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}
    own = own_counts(self.layers) if self.dense_layers or self.layer_densities else {}
    chosen = {} if self.maskable == "kernels" else {"maskable": [layer.name for layer in self.layers]}
    whole = {} if self.compact else {"compact": False}
    pattern = {"mask_pattern": self.mask_pattern} if self.mask_pattern else {}
    return found | smoothed | chosen | whole | pattern | ({"layers": own} if own else {})

  @property
  def layers(self) -> tuple[Layer, ...]:
    """The network's layers in the order of application, each with what this task says that it keeps.

    Raises:
      UsageError: a name of `dense_layers` or `layer_densities` that no layer has, or an impossible density.
    """
    found = self.free_layers
    if self.dense_layers or self.layer_densities:
      found = layer_rules.with_rule(found, self.dense_layers or (), self.layer_densities or ())
    return tuple(layer._replace(pattern=self.mask_pattern) for layer in found)

  @property
  def free_layers(self) -> tuple[Layer, ...]:
    """The same layers, none of which has a count of its own: those of the dense network."""
    return find_layers(self.network, self.data.input_shape, as_rule(self.maskable))

  @property
  def bare(self) -> "Task":
    """Its settings alone, without network and data; a loss and score that the data ask for are left out."""
    named = {
      name: None for name, usual in objectives.usual(self.data).items() if getattr(self, name) == usual
    }
    return self.replace(network=None, data=None, **named)

  @property
  def _loss(self) -> str | Loss:
    assert self.loss is not None  # since there are data
    return self.loss

  @property
  def _score(self) -> str | Score:
    assert self.score is not None
    return self.score

  def losses(self, outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """The loss of each example: [batch]. Validation and test take it, and so fitness."""
    return objectives.function_of("loss", self._loss, LOSSES)(outputs, labels)

  def training_losses(self, outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """The loss that trainings minimise, of each example: [batch]; with label smoothing, if there is any."""
    if self.label_smoothing:
      return losses.cross_entropy(outputs, labels, self.label_smoothing)
    return self.losses(outputs, labels)

  def scores(self, outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """The score of each example: [batch]."""
    return objectives.function_of("score", self._score, SCORES)(outputs, labels)

  @property
  def measures(self) -> Measures:
    """Names and directions of loss and score, as tables and figures need them."""
    return objectives.measures_of(self._loss, self._score, self.more_is_better)

  def at_precision(self, precision: str) -> "Task":
    """The task with the network's training products of that precision.

    Raises:
      UsageError: the network has no `precision`, and another than float32 is asked for.
    """
    if precision_of(self.network) == precision:
      return self
    if not has_precision(self.network):
      raise UsageError(
        f"{name_of(self.network)} has no field `precision`, so it trains in float32, not {precision}"
      )
    assert isinstance(self.network, nn.Module)
    return self.replace(network=self.network.clone(precision=precision))

  def for_search(self, precision: str = "float32") -> "Task":
    """What a search may look at: without the test part, and of the final training its schedule alone."""
    is_whole = self.training.schedule.search_schedule == "whole" or not self.epochs
    training = self.training if is_whole else self.training.over(self.epochs * self.steps_per_epoch)
    return self.at_precision(precision).replace(
      data=self.data.replace(test=None), training=training, epochs=0, eval_every=None, precision="float32"
    )

  def training_of_search(self, steps: int, before: int = 0) -> Training:
    """The training within a search, its schedule bound: to the final training's length, or to its own.

    Args:
      steps: iterations of the longest training of the search.
      before: iterations before it, to those weights that it is rewound to; the `whole` is of both.

    Raises:
      UsageError: the head of a schedule is asked for, and the final training has none or ends before it.
    """
    schedule = self.training.schedule
    if schedule.is_flat:
      return self.training
    if schedule.search_schedule == "whole":
      return self.training.over(before + steps)
    length = schedule.steps or self.epochs * self.steps_per_epoch
    if not length:
      raise UsageError(
        "a schedule is as long as the final training, and train_epochs is 0; give train_epochs, or "
        "search_schedule=whole, by which each training of the search has a schedule of its own length"
      )
    if schedule.ends and before + steps > length:
      rewound = f" from iteration {before:,} on, to which it is rewound" if before else ""
      raise UsageError(
        f"a training of this search takes {steps:,} iterations{rewound}, but the schedule ends with the "
        f"final training, after {length:,}; raise train_epochs, train for less in the search, or give "
        "search_schedule=whole"
      )
    return self.training.over(length)

  @property
  def steps_per_epoch(self) -> int:
    """Whole minibatches in an epoch."""
    return steps_per_epoch(len(self.data.train), self.training.batch_size)


# Whose settings are those of every task.
BARE_TASK = Task(None, None)  # pyrefly: ignore[bad-argument-type]  # of which settings alone are read
