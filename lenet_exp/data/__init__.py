"""Data sets: their sources, verification and division, and the one door to the test split."""
