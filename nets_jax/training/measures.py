"""What the loss and the score of a task are called, in what they are written, and which way is better.

Columns, tables, figures and verdicts follow from it, and `summary.json` holds it. Nothing here needs JAX.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self, cast

from nets_jax.engine.messages import say

SHARES = ("accuracy", "label_accuracy", "exact_match")  # scores that are written in per cent
LESS_IS_BETTER = ("absolute_error", "squared_error")
RESERVED = ("loss", "iteration", "unmasked", "total", "wins")  # what stands beside it in tables and records
INTERVAL = "_interval"  # after a column's name, that of the half-width of its mean's interval
LONGEST_LABEL = 36  # characters, as high as a panel
NATS = ("cross_entropy", "binary_cross_entropy")  # losses of which a size is known
_OF_ITS_LOSS = {
  "label_accuracy": "binary_cross_entropy",
  "exact_match": "binary_cross_entropy",
  "absolute_error": "squared_error",
  "squared_error": "squared_error",
}


class Measures(NamedTuple):
  """A task's loss and score, as tables and figures know them; by default those of classes.

  Attributes:
    loss: its name; less is better.
    score: its name, which columns have after the name of a split: `test_accuracy`.
    more_is_better: whether a higher score is the better one.
  """

  loss: str = "cross_entropy"
  score: str = "accuracy"
  more_is_better: bool = True

  @classmethod
  def of_record(cls, record: Mapping[str, object]) -> Self:
    """What a `summary.json` says, or that of classes where it says nothing."""
    return cls(**cast(dict, record.get("measures", {})))

  def record(self) -> dict[str, object]:
    """What `summary.json` holds: nothing of classes, whose files are as they always were."""
    return {} if self == type(self)() else {"measures": self._asdict()}

  def column(self, split: str) -> str:
    """The column of the score on a split."""
    return f"{split}_{self.score}"

  @property
  def words(self) -> str:
    """The score's name as a text has it."""
    return self.score.replace("_", " ")

  @property
  def is_share(self) -> bool:
    """Whether the score is a share, written in per cent."""
    return self.score in SHARES

  @property
  def is_known(self) -> bool:
    """Whether the score is one of ours, whose direction its name tells."""
    return self.score in (*SHARES, *LESS_IS_BETTER)

  @property
  def factor(self) -> float:
    """What a score is multiplied by where it is drawn: 100 of a share."""
    return 100.0 if self.is_share else 1.0

  @property
  def form(self) -> str:
    """How tables write the score, a name in `tables.FORMS`."""
    return "percent" if self.is_share else "number"

  def shown(self, score: float, digits: int = 1) -> str:
    """A score as a text: per cent with so many digits of a share, else a plain number."""
    if self.is_share:
      return f"{score:.{digits}%}"
    return f"{score:.4f}" if abs(score) < 10 else f"{score:.4g}"

  def score_label(self, split: str, after: str = "") -> str:
    """What an axis of the score says: `test accuracy (%)`."""
    return f"{split} {self.words}{after}" + (" (%)" if self.is_share else "")

  def loss_label(self, what: str) -> str:
    """What an axis of the loss says: `test loss (nats)`, or which loss it is; on two lines if long."""
    unit = "nats" if self.loss in NATS else self.loss.replace("_", " ")
    return f"{what}{' ' if len(what) + len(unit) < LONGEST_LABEL else chr(10)}({unit})"

  def is_as_good(self, score: float, other: float) -> bool:
    """Whether a score is at least as good as another; what is not a number never is."""
    return score >= other if self.more_is_better else score <= other

  def worst(self, scores: Iterable[float]) -> float:
    """The worst of some scores."""
    return min(scores) if self.more_is_better else max(scores)

  @property
  def sign(self) -> int:
    """What a score is multiplied by to be minimised: -1 where more is better."""
    return -1 if self.more_is_better else 1


OF_CLASSES = Measures()


def of_rows(rows: Iterable[Mapping[str, object]], *, directed: bool = False) -> Measures:
  """The measures of some rows of a table, by a column's name: for figures that are drawn of a file alone.

  Of rows without a score those of classes. Of a score of one's own, rows do not say whether more is better.

  Args:
    rows: of a table.
    directed: whether it matters which way is better; then a line says that more is taken to be, if need be.
  """
  columns: Mapping[str, object] = next(iter(rows), {})
  named = (re.fullmatch(r"(?:valid|test)_(?!loss$)(\w+)", str(column)) for column in columns)
  score = next((found[1] for found in named if found and not found[1].endswith(INTERVAL)), "accuracy")
  loss = _OF_ITS_LOSS.get(score, "cross_entropy")
  measures = Measures(loss, score, score not in LESS_IS_BETTER)
  if directed and not measures.is_known:
    say(f"more of {score} is taken to be better, for rows do not say; give measures, as of Task.measures")
  return measures


def column_name(name: str) -> str:
  """The name of a score of one's own as columns have it, not to be taken for the loss's or an interval's."""
  found = re.sub(r"\W+", "_", name).strip("_")
  if found in ("", "lambda"):
    return "score"
  return f"{found}_score" if found in RESERVED or found.endswith(INTERVAL) else found
