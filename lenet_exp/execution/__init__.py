"""A process for each attempt: its start, its messages, its checkpoints, what it may take, and signals."""
