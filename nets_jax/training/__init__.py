"""What a ticket is for, and its training: `task`, `train` (ONE ticket) and `trainer` (many side by side)."""
