"""What the sentences of README and docs/ tell of measurements is what the results' files hold."""

import json
import re

import pandas as pd
import pytest
from measurements import (
  DENSITIES,
  HALF_A_PERCENT,
  NOT_MEASURED,
  PAGES,
  RESULTS,
  benchmark_of,
  epochs,
  paired,
  percent,
  prose,
  rows_of,
)


def test_what_the_first_screen_says_of_the_figure():
  """A point ahead at 0.5 %, level at 1 and 2 %, behind IMP above; no method beats the dense network."""
  for sentence in (
    "Its search takes 104 epochs for each density, gradual pruning 50.",
    "IMP, which prunes a trained network again and again, takes 120 down to 0.5 %, all others on its way.",
    "At 0.5 % guided NeTS is a point ahead of all others, at 1 and 2 % level with the best.",
    "At 5 and 10 % IMP is ahead, at 5 % gradual pruning too.",
    "No method's tickets beat the dense network beyond the noise.",
  ):
    assert sentence in prose(PAGES["README.md"])
  costs = [epochs("recipe", method) for method in ("guided", "gradual", "imp_5_global")]
  assert costs == ["104", "50", "50 to 120"]
  rows = rows_of("recipe").test_accuracy.groupby(["method", "target_density"]).mean() * 100
  others = ["imp_5_global", "imp_10", "gradual", "rigl", "snip", "synflow", "erk", "guided_halved"]
  assert set(others) <= set(rows.index.get_level_values("method"))
  rivals = {density: max(rows[m, density] for m in others[:-1]) for density in DENSITIES.values()}
  ahead = {density: rows["guided", density] - best for density, best in rivals.items()}
  assert ahead[0.005] > 0.9
  assert all(abs(ahead[density]) < 0.2 for density in (0.01, 0.02))
  assert all(rows["imp_5_global", density] - rows["guided", density] > 0.1 for density in (0.05, 0.1))
  assert rows["gradual", 0.05] - rows["guided", 0.05] > 0.1 > rows["gradual", 0.1] - rows["guided", 0.1]
  assert max(rows.drop("dense")) <= rows["dense", 1.0] + 0.05  # half of the narrowest interval


def mean(rows, *key):
  """A mean in percent, as the pages write it."""
  return f"{100 * rows[key].mean():.1f}"


def of_the_digits():
  rows = rows_of("digits").test_accuracy
  ticket, random, dense = (rows[m, d] for m, d in (("guided", 0.1), ("random", 0.1), ("dense", 1.0)))
  checks = pd.read_csv(RESULTS / "digits/sanity.csv").set_index(["check", "trial"]).test_accuracy
  both = checks["ticket"] - checks["both"]
  return percent(ticket - random), percent(both), f"{100 * (dense - ticket).mean():.1f}"


def of_the_digits_at_a_fifth():
  rows = rows_of("digits").test_accuracy
  return [f"{100 * (rows['guided', 0.2] - rows['random', 0.2]).mean():.1f}"]


def at_the_lowest_loss():
  rows = rows_of("recipe").minimum_test_accuracy
  differences = [100 * (rows["imp_10", d] - rows["guided", d]).mean() for d in DENSITIES.values()]
  assert [difference > 0 for difference in differences] == [True, True, True, False, False]
  return [f"{abs(difference):.1f}" for difference in differences]


def behind_imp():
  """The least and the most that IMP's two forms are ahead at 5 and 10 %."""
  rows = rows_of("recipe").test_accuracy
  forms = "imp_5_global", "imp_10"
  ahead = [100 * (rows[m, d] - rows["guided", d]).mean() for m in forms for d in (0.1, 0.05)]
  return [f"{min(ahead):.1f}", f"{max(ahead):.1f}"]


def of_shuffled_masks():
  rows = pd.read_csv(RESULTS / "tuned/sanity.csv").groupby(["method", "target_density", "check"])
  means = rows.test_accuracy.mean() * 100
  loss = {
    (m, d, check): means[m, d, "ticket"] - means[m, d, check]
    for m in ("guided_halved", "imp_10")
    for d in (0.05, 0.01)
    for check in ("mask shuffled", "weights drawn anew")
  }
  shuffled = [loss[m, d, "mask shuffled"] for d in (0.05, 0.01) for m in ("guided_halved", "imp_10")]
  drawn = [value for key, value in loss.items() if key[2] == "weights drawn anew"]
  return [f"{value:.1f}" for value in (*shuffled, min(drawn), max(drawn))]


def controls_at_a_fifth():
  of = pd.read_csv(RESULTS / "controls/controls_20.csv").groupby("control").test_accuracy.mean()
  return [f"{100 * of[c]:.1f}" for c in ("snip_scaled", "random_scaled", "dense_scaled", "ticket")]


def controls_at_a_twentieth():
  of = pd.read_csv(RESULTS / "controls/controls_05.csv").groupby("control").test_accuracy.mean()
  return [f"{100 * of[c]:.1f}" for c in ("ticket", "snip_scaled", "random_scaled")]


def without_evolution():
  ablations, densities = (rows_of(name).test_accuracy for name in ("ablations_paper", "densities"))
  return mean(ablations, "unscaled", 0.05), mean(densities, "line_4", 0.05)


def imp_at_a_tickets_scales():
  own, guided = rows_of("ablations_paper").test_accuracy, rows_of("densities").test_accuracy
  fifth, twentieth = (paired(own["imp_own", d], guided["guided", d]) for d in (0.2, 0.05))
  epochs_of = rows_of("ablations_paper").search_epochs, rows_of("densities").search_epochs
  times = [epochs_of[0]["imp_own", d].mean() / epochs_of[1]["guided", d].mean() for d in (0.2, 0.05)]
  assert [round(t, 1) for t in times] == [6.7, 12.5]  # "7 and 12 times"
  return fifth.removeprefix("+"), twentieth.removeprefix("-")


def fashion_in_the_papers_setting():
  rows = rows_of("densities_fashion").test_accuracy
  return [
    mean(rows, *key)
    for key in (("guided", 0.2), ("guided", 0.05), ("dense", 1.0), ("imp", 0.2), ("imp", 0.05))
  ]


def fashion_by_mnists_settings():
  rows = pd.read_csv(RESULTS / "transfer/fashion.csv").groupby("method").test_accuracy.mean()
  (dense,) = (rows[name] for name in rows.index if name.startswith("dense"))
  return [f"{100 * value:.1f}" for value in (rows["guided_halved"], rows["imp_10"], dense)]


def rigl_as_trained():
  rows = rows_of("recipe").own_test_accuracy
  return mean(rows, "rigl", 0.05), mean(rows, "rigl", 0.01)


def of_first_weights():
  rows = pd.read_csv(RESULTS / "mnist_ablations/table1.csv").groupby("method")
  found = rows.get_group("nets:init_scale=0.0011")
  return [f"{100 * found[column].mean():.1f}" for column in ("density", "test_accuracy")]


def of_fashion_at_a_hundredth():
  rows = rows_of("recipe/fashion").test_accuracy
  rivals = ("imp_5_global", "imp_10", "gradual")
  ahead = [100 * (rows["guided", 0.01] - rows[m, 0.01]).mean() for m in rivals]
  return [f"{min(ahead):.1f}", f"{max(ahead):.1f}"]


def tickets_that_win_on_digits():
  text = (RESULTS / "digits/densities.md").read_text()
  wins, count = re.search(r"^\| guided +\|.*\| (\d+) of (\d+) \(\d+, \d+\) \|$", text, re.MULTILINE).groups()
  return wins, count


def on_a_gpu():
  found = pd.read_csv(RESULTS / "gpu/gpu.csv")
  return [f"{100 * value:.1f}" for value in found.test_accuracy]


def of_the_faster_machine():
  found = benchmark_of("benchmark").seconds
  return [
    f"{value:.1f}" for name, value in found.items() if name.startswith(("the paper's search", "guided NeTS"))
  ]


def beside_pytorch():
  found = benchmark_of("benchmark").times_the_first
  names = (f"{name}, eager PyTorch on one network" for name in ("lenet5", "conv2", "resnet8", "resnet20"))
  return [f"{found[name]:.1f}" for name in names]


def of_the_seconds_of_a_search():
  """Of the two cores the least and the most of the tuned densities."""
  cores = rows_of("recipe").search_seconds["guided"]
  found = pd.read_csv(RESULTS / "gpu/gpu.csv")
  assert found.search_seconds.nunique() == found.compile_seconds.nunique() == 1
  ends = (cores.min(), cores.max(), found.compile_seconds[0])
  return [*(f"{end:.0f}" for end in ends[:2]), f"{found.search_seconds[0]:.1f}", f"{ends[2]:.0f}"]


def of_the_forms():
  found = json.loads((RESULTS / "forms/config.json").read_text())["test_accuracy"]
  return [f"{100 * value:.1f}" for value in found.values()]


def of_the_others_optimiser():
  """The most that a ticket loses by the training that the other search chose, seeds 0 and 1."""
  found = {"guided_halved": "guided_by_adam", "imp_10": "imp_by_sgd"}
  tuned, losses = rows_of("tuned").test_accuracy, []
  for method, name in found.items():
    rows = pd.read_csv(RESULTS / f"transfer/{name}.csv").set_index(["control", "ticket"]).test_accuracy
    losses += [100 * (tuned[method, 0.05, seed] - rows["ticket", seed]) for seed in (0, 1)]
  return [f"{max(losses):.1f}"]


def of_imps_variants():
  """The most that a variant is above IMP in cycles of ten, layer by layer, down to 1 %."""
  rows, plain = rows_of("tuned_imp").test_accuracy, rows_of("tuned").test_accuracy
  variants = {*rows.index.get_level_values("method")}
  gains = [
    100 * (rows[v, d].mean() - plain["imp_10", d].mean()) for v in variants for d in (0.1, 0.05, 0.02, 0.01)
  ]
  return [f"{max(gains):.1f}"]


def of_gradual_pruning():
  rows = rows_of("recipe").test_accuracy
  assert epochs("recipe", "gradual") == "50"  # half of one search, to a twentieth
  assert all(abs((rows["gradual", d] - rows["guided", d]).mean()) < 0.002 for d in (0.1, 0.02, 0.01))
  return [f"{100 * (rows['gradual', 0.05] - rows['guided', 0.05]).mean():.1f}"]


def of_resnet8():
  rows = rows_of("recipe/resnet8/tuned").test_accuracy
  assert {len(rows[method, 0.05]) for method in ("guided", "imp_5_global", "gradual")} == {3}
  behind = paired(rows["imp_5_global", 0.05], rows["guided", 0.05]).removeprefix("+")
  return [*(mean(rows, method, 0.05) for method in ("guided", "imp_5_global", "gradual")), behind]


def of_three_settings_on_resnet8():
  """And told from no rival, by intervals that hold 0; they were found on the first seed."""
  others = rows_of("recipe/resnet8/tuned").test_accuracy
  rows = others["together", 0.05]
  assert len(rows) == 3
  assert (rows - others["guided", 0.05] > 0).all()
  told = [
    paired(rows, others[name, 0.05]).removeprefix("+") for name in ("guided", "imp_5_global", "gradual")
  ]
  assert all(abs(middle) <= half for middle, half in (map(float, text.split(" ± ")) for text in told[1:]))
  above, below = 100 * (rows - others["imp_5_global", 0.05]).iloc[1:]
  return [f"{100 * rows.mean():.1f}", *told, f"{above:.1f}", f"{-below:.1f}"]


def of_saliencies_on_resnet8():
  rows = rows_of("recipe/resnet8").test_accuracy
  return [mean(rows, method, 0.05) for method in ("line", "line_lamp")]


def of_imp_by_lamp_on_resnet8():
  return [mean(rows_of("recipe/resnet8").test_accuracy, "imp_5_lamp", 0.05)]


def of_lamp_in_the_papers_setting():
  rows = rows_of("recipe/paper").test_accuracy
  common = rows["guided_lamp", 0.01].index
  assert len(common) == 5
  return [paired(rows["guided", 0.01], rows["guided_lamp", 0.01]).removeprefix("+")]


def of_a_line_by_lamp():
  """Where it is level, by intervals that hold 0."""
  rows = rows_of("recipe/lamp").test_accuracy
  for density in (0.1, 0.05, 0.02, 0.01):
    middle, half = map(float, paired(rows["line_lamp", density], rows["guided", density]).split(" ± "))
    assert abs(middle) <= min(half, 0.2)
  return [paired(rows["guided", 0.005], rows["line_lamp", 0.005]).removeprefix("+")]


def of_the_settings_together():
  """In the paper's setting and on MNIST, where it is level above 0.5 %, by intervals that hold 0."""
  losses = []
  for place, density in (("paper", 0.01), ("", 0.005)):
    default = rows_of(f"recipe/{place}").test_accuracy
    together = rows_of(f"recipe/together/{place}").test_accuracy
    losses.append(paired(default["guided", density], together["guided", density]).removeprefix("+"))
  for density in (0.1, 0.05, 0.02, 0.01):
    middle, half = map(float, paired(together["guided", density], default["guided", density]).split(" ± "))
    assert abs(middle) <= half
  return losses


CLAIMS = [
  (
    "results_limits.md",
    "it is {} points behind `balanced` at 1 % in the paper's setting. With all tuned on MNIST, each by its "
    "own optimiser, it is {} points behind at 0.5 % and level above that",
    of_the_settings_together,
  ),
  (
    "results_limits.md",
    "one line of genomes that are each trained for four epochs comes to {} % by `balanced` and to {} % by "
    "`--saliency=lamp`",
    of_saliencies_on_resnet8,
  ),
  (
    "results_limits.md",
    "at 1 % five seeds of guided NeTS lose {} points by `lamp`",
    of_lamp_in_the_papers_setting,
  ),
  (
    "results_limits.md",
    "is as good as guided NeTS down to 1 %, and {} points below it at 0.5 %",
    of_a_line_by_lamp,
  ),
  (
    "results_limits.md",
    "IMP's ticket on `resnet8` comes to {} % by `--prune_scope=lamp`",
    of_imp_by_lamp_on_resnet8,
  ),
  (
    "results_limits.md",
    "it comes to {} % at 5 %, IMP to {} % and gradual pruning to {} %. "
    "IMP is {} points ahead, paired by seed",
    of_resnet8,
  ),
  (
    "results_limits.md",
    "So it comes to {} %, which is {} points more, {} above IMP and {} above gradual pruning. "
    "On the other two seeds it is {} points above IMP and {} below",
    of_three_settings_on_resnet8,
  ),
  ("results.md", "level with it down to 1 %, and {} points ahead at 5 %", of_gradual_pruning),
  ("export.md", "Test accuracies are {}, {} and {} %", of_the_forms),
  ("results_guided.md", "tickets of both lose {} points at most", of_the_others_optimiser),
  ("results_limits.md", "carry over to the other's optimiser, within {} points", of_the_others_optimiser),
  ("results_limits.md", "IMP's variants bring {} points at most down to 1 %", of_imps_variants),
  (
    "results_guided.md",
    "IMP in cycles of ten is {} and {} points ahead at 10 and 5 %, and {} at 2 %. "
    "At 1 and 0.5 % it is {} and {} points behind",
    at_the_lowest_loss,
  ),
  (
    "README.md",
    "the ticket is {} points better than a random one, {} than one of its layers' counts and scales, and {} "
    "below dense",
    of_the_digits,
  ),
  ("README.md", "which {} of {} seeds meets here", tickets_that_win_on_digits),
  (
    "README.md",
    "A search takes {} to {} s on two cores, and {} s on an H100 after {} s of compiling",
    of_the_seconds_of_a_search,
  ),
  ("results.md", "At 20 % it does so by {} points", of_the_digits_at_a_fifth),
  ("results.md", "{} to {} points behind it at 5 and 10 %", behind_imp),
  ("results_guided.md", "At 5 and 10 % IMP is {} to {} points ahead", behind_imp),
  (
    "results_guided.md",
    "they lose {} and {} points at 5 %, {} and {} at 1 % (three seeds). "
    "New weights at the same scales cost {} to {} points.",
    of_shuffled_masks,
  ),
  (
    "results_guided.md",
    "SNIP's mask, a random one and the dense network come to {}, {} and {} %. The ticket comes to {} %",
    controls_at_a_fifth,
  ),
  ("results_guided.md", "{} % against {} % for SNIP's and {} % for a random one", controls_at_a_twentieth),
  (
    "results_guided.md",
    "without scale steps the search comes to {} % at 5 %. "
    "One line of genomes pruned again and again, for as many epochs, comes to {} %",
    without_evolution,
  ),
  ("results_guided.md", "{} points above the ticket at 20 %, {} below it at 5 %", imp_at_a_tickets_scales),
  (
    "results_guided.md",
    "{} and {} % at 20 and 5 % (four seeds). The dense network comes to {} %, IMP to {} and {} % (two seeds)",
    fashion_in_the_papers_setting,
  ),
  (
    "results_guided.md",
    "at 5 % `halved` comes to {} %, IMP to {} %, dense to {} % (two seeds)",
    fashion_by_mnists_settings,
  ),
  ("results_limits.md", "What RigL has trained itself comes to {} and {} % at 5 and 1 %", rigl_as_trained),
  ("results_limits.md", "ahead by {} to {} points at 1 %", of_fashion_at_a_hundredth),
  ("results_paper.md", "{} % and {} % in two trials", of_first_weights),
  ("speed.md", "Its tickets are at {} and {} %", on_a_gpu),
  ("speed.md", "On the faster machine of the first table these are {}, {} and {} s", of_the_faster_machine),
  ("speed.md", "which PyTorch's convolutions are made for, they are {}, {}, {} and {}", beside_pytorch),
]


@pytest.mark.parametrize(("page", "sentence", "of"), CLAIMS, ids=[claim[2].__name__ for claim in CLAIMS])
def test_a_sentence_says_what_was_measured(page, sentence, of):
  assert sentence.format(*of()) in prose(PAGES[page])


MEASURED = re.compile(
  r"\d ± \d|\d\.\d+ ?(?:%|percent|points?|s\b|seconds?|ms\b|minutes?|hours?|times|x\b|kB|MB|GB)"
)


def test_every_sentence_of_measurements_is_held():
  """What has a decimal and a unit is in a sentence of `CLAIMS`, less densities of half a percent."""
  known = {}
  for page, sentence, of in CLAIMS:
    known.setdefault(page, []).append(sentence.format(*of()))
  for page in PAGES.keys() - NOT_MEASURED:
    text = HALF_A_PERCENT.sub("", prose(PAGES[page]))
    for claim in known.get(page, ()):
      text = text.replace(HALF_A_PERCENT.sub("", claim), "")
    assert [text[max(0, m.start() - 60) : m.end() + 20] for m in MEASURED.finditer(text)] == [], page
