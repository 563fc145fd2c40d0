"""Where a device's memory ends: fewer networks at once, a line that says so, and the same result."""

import dataclasses
from concurrent.futures import Future

import jax
import pytest
from conftest import assert_same_bits, assert_same_results

import nets_jax
from nets_jax.baselines import one_shot
from nets_jax.baselines.one_shot import Magnitude, Snip
from nets_jax.engine.exhaustion import LESS_TO_TRAIN, within_memory
from nets_jax.evolution import halving
from nets_jax.evolution import search as nets_search
from nets_jax.training import loop

FULL = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.\nmore"


def layout(size, chunk):
  """One CPU device that takes several at once, as an accelerator does."""
  return dataclasses.replace(nets_jax.make_layout(size, devices=1), chunk=chunk)


def exhausted(module, monkeypatch, at):
  """Has programs for more than one network at once fail: as they are compiled, or as they run."""
  original, chunks = module.compile_program, []

  def compile_program(program, *arguments, **named):
    layouts = [x for x in (*arguments, *named.values()) if isinstance(x, nets_jax.Layout)]
    chunk = layouts[0].chunk or layouts[0].size
    chunks.append(chunk)
    if chunk > 1 and at == "compile":
      raise jax.errors.JaxRuntimeError(FULL)
    compiled, seconds = original(program, *arguments, **named)

    def run(*given):
      if chunk > 1:
        raise jax.errors.JaxRuntimeError(FULL)
      return compiled(*given)

    return run, seconds

  monkeypatch.setattr(module, "compile_program", compile_program)
  if (
    module is nets_search
  ):  # its first program is compiled in a thread, which memory does not suffice for either
    monkeypatch.setattr(module, "compile_in_thread", lambda *given: failed(jax.errors.JaxRuntimeError(FULL)))
  return chunks


def failed(error):
  future = Future()
  future.set_exception(error)
  return future


def test_a_training_goes_on_with_fewer_at_once(task, ticket, monkeypatch, capsys):
  tickets = [ticket] * 4
  wanted = nets_jax.train_tickets([1, 2, 3, 4], tickets, task, steps=3, layout=layout(4, 1))
  chunks = exhausted(loop, monkeypatch, "compile")
  found = nets_jax.train_tickets([1, 2, 3, 4], tickets, task, steps=3, layout=layout(4, None))
  assert chunks == [4, 2, 1]
  lines = capsys.readouterr().err.splitlines()
  assert lines == [
    f"not enough memory on a device for {n} networks at once; goes on with {n // 2} (--chunk)" for n in (4, 2)
  ]
  assert_same_bits(found.weights, wanted.weights)
  assert [row["valid_loss"] for row in found.curves] == [row["valid_loss"] for row in wanted.curves]


def test_a_search_goes_on_with_fewer_at_once(task, monkeypatch, capsys):
  search = nets_jax.recipes.paper(population_size=2, generations=0, fitness_epochs=0.3)
  wanted = nets_jax.search(0, task, search, layout=layout(2, 1))
  chunks = exhausted(nets_search, monkeypatch, "compile")
  found = nets_jax.search(0, task, search, layout=layout(2, 2))
  assert chunks == [2, 1]
  assert "for 2 networks at once; goes on with 1 (--chunk)" in capsys.readouterr().err
  assert_same_results([found], [wanted])


@pytest.mark.devices
@pytest.mark.parametrize("full_from", [0, 2])
def test_a_halving_search_goes_on_in_its_later_stages(task, monkeypatch, full_from):
  """From its first stage on, or its second; each stage has a program of its own."""
  search = nets_jax.recipes.halved(population_size=4, generations=3, halvings=1, fitness_epochs=1.5)
  monkeypatch.setattr(halving, "shares_program", lambda search, task: False)
  wanted = nets_jax.search(0, task, search, layout=layout(4, 1))
  monkeypatch.undo()
  here, in_thread, chunks = nets_search.compile_program, nets_search.compile_in_thread, []

  def is_full(layout):
    chunks.append(min(layout.chunk, layout.size))
    return chunks[-1] > 1 and len(chunks) > full_from - 1

  def compile_program(program, *arguments):
    return full(arguments[3]) if is_full(arguments[3]) else here(program, *arguments)

  def compile_in_thread(program, *arguments):
    error = jax.errors.JaxRuntimeError(FULL)
    return failed(error) if is_full(arguments[3]) else in_thread(program, *arguments)

  monkeypatch.setattr(nets_search, "compile_program", compile_program)
  monkeypatch.setattr(nets_search, "compile_in_thread", compile_in_thread)
  found = nets_jax.search(0, task, search, layout=layout(4, 4))
  assert chunks == ([4, 4, 2, 1, 1] if full_from == 0 else [4, 2, 1])  # the first in a thread
  if full_from == 0:
    assert_same_results([found], [wanted])


def test_scores_go_on_with_fewer_at_once(task, monkeypatch, capsys):
  wanted = nets_jax.search_all([0, 1], task, Magnitude(0.4, score_batch=30), layout=layout(2, 1))
  chunks = exhausted(one_shot, monkeypatch, "run")
  found = nets_jax.search_all([0, 1], task, Magnitude(0.4, score_batch=30), layout=layout(2, 2))
  assert chunks == [2, 1]
  assert "goes on with 1" in capsys.readouterr().err
  assert_same_results(found, wanted)


def test_every_cycle_of_imp_has_what_the_first_found_room_for(task, monkeypatch):
  chunks = exhausted(loop, monkeypatch, "compile")
  nets_jax.search_all([0, 1], task, nets_jax.Imp(cycles=3, cycle_epochs=1), layout=layout(2, 2))
  assert chunks == [2, 1, 1, 1]


@pytest.mark.parametrize(("search", "advice"), [(Snip, "lower score_batch"), (Magnitude, "take a smal")])
def test_scores_have_advice_of_their_own(task, monkeypatch, search, advice):
  monkeypatch.setattr(one_shot, "compile_program", lambda *given, layout: full(layout))
  with pytest.raises(nets_jax.UsageError, match=rf"for one network at a time .*; {advice}"):
    nets_jax.search(0, task, search(0.4, score_batch=30))


def full(layout):
  raise jax.errors.JaxRuntimeError(FULL)


def test_memory_for_not_even_one_is_one_line():
  with pytest.raises(
    nets_jax.UsageError, match=r"for one network at a time .RESOURCE_EX.* 17179869184 bytes"
  ) as e:
    within_memory(full, layout(5, 3), LESS_TO_TRAIN)
  assert "lower batch_size, or give --accumulate" in str(e.value)
  assert "\n" not in str(e.value)


def test_several_processes_are_told_what_to_give(monkeypatch):
  wide = layout(8, None)
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(nets_jax.UsageError, match=r"for 8 networks at once .*; give all processes --chunk=4$"):
    within_memory(full, wide, LESS_TO_TRAIN)


def test_another_error_is_none_of_memory():
  def broken(layout):
    raise jax.errors.JaxRuntimeError("INTERNAL: something else")

  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    within_memory(broken, layout(4, 4), LESS_TO_TRAIN)


@pytest.mark.devices
def test_fewer_at_once_change_no_bit_of_a_result(task, ticket, monkeypatch):
  """Half of what was asked for, and then half of that, against all at once."""
  whole = nets_jax.train_tickets([1, 2, 3, 4], [ticket] * 4, task, steps=3)
  exhausted(loop, monkeypatch, "run")
  found = nets_jax.train_tickets([1, 2, 3, 4], [ticket] * 4, task, steps=3, layout=layout(4, None))
  assert_same_bits(found.weights, whole.weights)
