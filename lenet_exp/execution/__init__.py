"""One process for each attempt: its start, its messages, its checkpoints, its limits, and signals."""
