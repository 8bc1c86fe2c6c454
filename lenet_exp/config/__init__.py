"""What a user writes and what it means: experiment files, hyper-parameters, spaces, ablations."""
