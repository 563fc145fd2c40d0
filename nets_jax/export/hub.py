"""A directory as Hugging Face's hub has models: `model.safetensors`, `config.json` and a card, `README.md`.

It can be pushed as it is; nothing here uses a network.
"""

import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Sequence

from nets_jax.engine.tables import standard_json, write_json
from nets_jax.errors import UsageError
from nets_jax.export.trained_tickets import ABOUT, load_whole
from nets_jax.networks.adapter import Network
from nets_jax.networks.zoo import NETWORKS
from nets_jax.tickets.storage import load_provenance, load_ticket
from nets_jax.tickets.tensor_files import read
from nets_jax.tickets.ticket import density, maskable_count, unmasked_count
from nets_jax.tickets.trained import load_trained

MODEL, TICKET, CONFIG, CARD = "model.safetensors", "ticket.safetensors", "config.json", "README.md"
OF_TICKET = """
import nets_jax

ticket = nets_jax.load_ticket("{file}")
"""
OF_NETWORK = """network = nets_jax.load_network("{file}")
"""
OF_MODEL = """trained = nets_jax.load_trained("{file}")  # its weights, and the state it is evaluated with
"""


def save_for_hub(
  directory: str | os.PathLike,
  ticket: str | os.PathLike,
  trained: str | os.PathLike | None = None,
  network: Network | None = None,
  input_shape: Sequence[int] = (),
) -> None:
  """Writes the directory, whole or not at all.

  Args:
    directory: that must not be there yet.
    ticket: the file of a ticket, which is copied: as `model.safetensors`, or beside it.
    trained: the file of what it has become; then this is `model.safetensors`.
    network, input_shape: by which a trained network is checked; by default those that the ticket's file says.

  Raises:
    UsageError: the directory is there, a file is damaged, or the trained network is not of this ticket.
  """
  directory = pathlib.Path(directory)
  if directory.exists():
    raise UsageError(f"{directory} is there already; name a new directory")
  found, metadata = load_ticket(ticket), read(ticket)[1]
  notes: dict[str, object] = {}
  if trained is not None:
    load_whole(ticket, trained, network, input_shape)
    notes = {n: v for n, v in load_trained(trained).metadata.items() if n not in (*ABOUT, "format_version")}
  config = {
    "library_name": "nets_jax",
    **{name: metadata.get(name) for name in ("format_version", "network", "network_arguments")},
    "density": float(density(found)),
    "unmasked": int(unmasked_count(found)),
    "maskable": maskable_count(found),
    "training": notes,
    "provenance": load_provenance(ticket).record(),
  }
  directory.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as temporary:
    made = pathlib.Path(temporary) / "made"
    made.mkdir()
    shutil.copyfile(ticket, made / (MODEL if trained is None else TICKET))
    if trained is not None:
      shutil.copyfile(trained, made / MODEL)
    write_json(made / CONFIG, config)
    (made / CARD).write_text(_card(config, directory.name, trained is not None), encoding="utf-8")
    os.replace(made, directory)


def _card(config: dict, name: str, is_trained: bool) -> str:
  """The model's card: what a hub indexes, then what a reader wants to know."""
  known = config["provenance"]
  dataset = str(known.get("task", {}).get("dataset", ""))
  head = ["---", "library_name: nets_jax", "tags:", "- lottery-ticket", "- pruning", "- sparse", "- jax"]
  head += ["datasets:", f'- "{dataset}"'] if dataset.isascii() and dataset.replace("_", "").isalnum() else []
  of_ticket = "a ticket: weights before any training, and a mask"
  what = "a trained sparse network, and its ticket" if is_trained else of_ticket
  facts = [
    ("network", {"name": config["network"], "arguments": config["network_arguments"]}),
    ("weights kept", f"{config['unmasked']:,} of {config['maskable']:,} ({config['density']:.2%})"),
    *([("after the training", config["training"])] if config["training"] else []),
    *((title, known[key]) for title, key in FACTS if key in known),
  ]
  body = [f"# {_plain(name)}", "", f"This is {what}.", "", "| | |", "|---|---|"]
  body += [f"| {title} | {_plain(value)} |" for title, value in facts]
  usage = OF_TICKET.format(file=TICKET if is_trained else MODEL)
  usage += (
    OF_NETWORK.format(file=TICKET if is_trained else MODEL) if str(config["network"]) in NETWORKS else ""
  )
  usage += OF_MODEL.format(file=MODEL) if is_trained else ""
  note = (
    "Inputs are standardised, each channel by its mean and deviation, above."
    if "mean" in known
    else "Inputs are as the data set of `nets_jax` has them."
  )
  return "\n".join([*head, "---", "", *body, "", note, "", "With nets_jax:", "", f"```python{usage}```", ""])


def _plain(value: object) -> str:
  """A value as one line of text in which nothing is Markdown or HTML, whatever a file says."""
  text = value if isinstance(value, str) else json.dumps(standard_json(value))
  text = text if text.isascii() and text.isprintable() else ascii(text)
  return re.sub(r"[^\w ,.:%+/()=\"{}'-]", lambda sign: f"&#{ord(sign[0])};", text[:LONGEST])


LONGEST = 3000
FACTS = (
  ("found by", "search"),
  ("for", "task"),
  ("inputs are standardised by their mean", "mean"),
  ("and their deviation", "deviation"),
  ("outputs are to be multiplied by", "target_deviation"),
  ("and this added", "target_mean"),
  ("settings", "settings"),
  ("seed", "seed"),
)
