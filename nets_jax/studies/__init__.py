"""Comparisons, frontiers, sweeps and controls: from searches and tasks to tables."""
