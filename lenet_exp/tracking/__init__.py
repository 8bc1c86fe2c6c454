"""The spool on disk, in which every epoch is written first, and what carries it to MLflow."""
