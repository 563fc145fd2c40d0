"""Speed and memory beside the machine's limits and what a user would run instead."""
