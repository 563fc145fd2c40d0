"""Neuroevolution Ticket Search (paper, Algorithm 1), from its parts to its recipes.

In reading order: `schedules`, `saliency`, `operators` (with `dormancy` and `scales`), `selection`, `ranking`
(with `pareto`), `fitness` (Algorithm 2), `configuration` (the settings), `breeding`, `generation` (one turn
of the loop), `halving`, `history`, `frontier`, `run_record`, `resuming`, `search` (the loop) and `recipes`.
"""
