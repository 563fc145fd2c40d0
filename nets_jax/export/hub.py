"""A directory as Hugging Face's hub has models: `model.safetensors`, `config.json` and a card, `README.md`.

It can be pushed as it is; nothing here uses a network.
"""

import json
import os
import pathlib
import shutil
import tempfile

from nets_jax.errors import UsageError
from nets_jax.tickets.storage import load_provenance, load_ticket
from nets_jax.tickets.tensor_files import read
from nets_jax.tickets.ticket import density, maskable_count, unmasked_count
from nets_jax.tickets.trained import load_trained

MODEL, TICKET, CONFIG, CARD = "model.safetensors", "ticket.safetensors", "config.json", "README.md"
OF_TICKET = """
```python
import nets_jax

ticket = nets_jax.load_ticket("{file}")
network = nets_jax.load_network("{file}")
```
"""
OF_MODEL = """
```python
trained = nets_jax.load_trained("{file}")  # its weights, and the state it is evaluated with
```
"""


def save_for_hub(
  directory: str | os.PathLike, ticket: str | os.PathLike, trained: str | os.PathLike | None = None
) -> None:
  """Writes the directory, whole or not at all.

  Args:
    directory: that must not be there yet.
    ticket: the file of a ticket, which is copied: as `model.safetensors`, or beside it.
    trained: the file of what it has become; then this is `model.safetensors`.

  Raises:
    UsageError: the directory is there, or a file is damaged, or they are of different networks.
  """
  directory = pathlib.Path(directory)
  if directory.exists():
    raise UsageError(f"{directory} is there already; name a new directory")
  found, metadata = load_ticket(ticket), read(ticket)[1]
  if trained is not None:
    of_trained = load_trained(trained).metadata
    if any(of_trained.get(name) != metadata.get(name) for name in ("network", "network_arguments")):
      raise UsageError(f"{trained} and {ticket} are of different networks")
  config = {
    "library_name": "nets_jax",
    **{name: metadata.get(name) for name in ("format_version", "network", "network_arguments")},
    "density": float(density(found)),
    "unmasked": int(unmasked_count(found)),
    "maskable": maskable_count(found),
    "provenance": load_provenance(ticket).record(),
  }
  directory.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as temporary:
    made = pathlib.Path(temporary) / "made"
    made.mkdir()
    shutil.copyfile(ticket, made / (MODEL if trained is None else TICKET))
    if trained is not None:
      shutil.copyfile(trained, made / MODEL)
    (made / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    (made / CARD).write_text(_card(config, directory.name, trained is not None))
    os.replace(made, directory)


def _card(config: dict, name: str, is_trained: bool) -> str:
  """The model's card: what a hub indexes, then what a reader wants to know."""
  known = config["provenance"]
  dataset = str(known.get("task", {}).get("dataset", ""))
  head = ["---", "library_name: nets_jax", "tags:", "- lottery-ticket", "- pruning", "- sparse", "- jax"]
  head += ["datasets:", f"- {dataset}"] if dataset.replace("_", "").isalnum() else []
  what = (
    "a trained sparse network, and its ticket"
    if is_trained
    else "a ticket: weights before any training, and a mask"
  )
  facts = [
    ("network", f"{config['network']} {json.dumps(config['network_arguments'])}"),
    ("weights kept", f"{config['unmasked']:,} of {config['maskable']:,} ({config['density']:.2%})"),
    *((title, json.dumps(known[key])) for title, key in FACTS if key in known),
  ]
  body = [f"# {name}", "", f"This is {what}.", "", "| | |", "|---|---|"]
  body += [f"| {title} | {text.replace('|', ' ')} |" for title, text in facts]
  usage = OF_TICKET.format(file=TICKET if is_trained else MODEL) + (
    OF_MODEL.format(file=MODEL) if is_trained else ""
  )
  return "\n".join([*head, "---", "", *body, "", "`pip install nets_jax`, then:", usage])


FACTS = (("found by", "search"), ("for", "task"), ("settings", "settings"), ("seed", "seed"))
