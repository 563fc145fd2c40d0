"""The records of `inspection` as text for people; what a file says is shown without control characters."""

from collections.abc import Mapping, Sequence

from nets_jax.analysis.inspection import Record

SHOWN = 200  # signs of what a file says


def description(record: Record) -> str:
  """Of one ticket: a table of its layers, and what is known of it."""
  layers = _records(record["layers"])
  width = max(5, *(len(_safe(layer["name"])) for layer in layers))
  lines = [
    f"{_safe(record['file'])}: a ticket of {_safe(record['network'])}"
    f"({_arguments(record['network_arguments'])})",
    f"{record['unmasked']:,} of {record['maskable']:,} weights, a density of {record['density']:.2%}",
    "",
    f"{'layer':{width}}  {'shape':>16}  {'unmasked':>10}  {'density':>8}  {'scale':>8}",
  ]
  lines += [
    f"{_safe(layer['name']):{width}}  {' x '.join(map(str, layer['shape'])):>16}  {layer['unmasked']:>10,}  "
    f"{layer['density']:>8.2%}  {layer['scale']:>8.4f}"
    for layer in layers
  ]
  sizes = record["bytes"]
  assert isinstance(sizes, Mapping)
  lines += ["", "bytes: " + ", ".join(f"{size:,} {form}" for form, size in sizes.items() if size is not None)]
  if record["unknown"] is None:
    lines += [
      f"{record['units_alive']:,} of {record['units']:,} inputs and hidden units alive; "
      f"{record['multiplications']:,} of {record['whole_multiplications']:,} multiplications for an example"
    ]
  else:
    lines += [f"units alive are not known: {_safe(record['unknown'])}"]
  lines += [f"SHA-256 of the content {record['sha256']}, format version {record['format_version']}"]
  return "\n".join([*lines, *_provenance(record["provenance"])])


def common(record: Record) -> str:
  """Of two tickets: how much their masks, scales and units have in common."""
  rows = [*_records(record["layers"]), {"name": "all", **_record(record["all"])}]
  if record["units"] is not None:
    rows.append({"name": "units alive", **_record(record["units"])})
  width = max(5, *(len(_safe(row["name"])) for row in rows))
  lines = [
    f"{'layer':{width}}  {'in A':>10}  {'in B':>10}  {'in both':>10}  "
    f"{'Jaccard':>8}  {'by chance':>9}  scales"
  ]
  for row in rows:
    a, b = row["counts"]
    scales = " and ".join(f"{scale:.4f}" for scale in row.get("scales", ()))
    lines.append(
      f"{_safe(row['name']):{width}}  {a:>10,}  {b:>10,}  {row['both']:>10,}  {_share(row['jaccard']):>8}  "
      f"{_share(row['jaccard_by_chance']):>9}  {scales}".rstrip()
    )
  return "\n".join(lines)


def _provenance(known: object) -> list[str]:
  """Where a ticket comes from, a line each."""
  if not known:
    return ["the file does not say where the ticket comes from"]
  known = _record(known)
  lines = [f"found by {_safe(known.get('search', 'an unknown search'))}, seed {known.get('seed', 'unknown')}"]
  if "trial" in known:
    lines[0] += f", trial {known['trial']}"
  lines += [
    f"{title}: {_arguments(known[name])}"
    for title, name in (("settings", "settings"), ("task", "task"), ("versions", "versions"))
    if known.get(name)
  ]
  return lines + [f"revision: {_safe(known[name])}" for name in ("git_revision",) if name in known]


def _arguments(values: object) -> str:
  if not isinstance(values, Mapping):
    return ""
  return ", ".join(f"{_safe(name)}={_safe(value)}" for name, value in values.items())


def _safe(value: object) -> str:
  """A text of a file, cut, on one line and without control characters."""
  text = str(value)
  text = text if text.isprintable() else ascii(text)
  return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _share(value: object) -> str:
  return f"{value:.1%}" if isinstance(value, float) else "-"


def _record(value: object) -> dict:
  assert isinstance(value, Mapping)
  return dict(value)


def _records(values: object) -> list[dict]:
  assert isinstance(values, Sequence)
  return [_record(value) for value in values]
