"""Tickets: `ticket`, masks of an exact count (`pruning`), `controls`, `results`, and files (`storage`)."""
