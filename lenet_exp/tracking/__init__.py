"""The spool on disk, where every epoch is written first, and what carries it to MLflow; MLflow's UI."""
