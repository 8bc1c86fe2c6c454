"""Ours against what a user would pick instead; ``nox -s bench`` runs it."""
