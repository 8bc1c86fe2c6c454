"""Data sets: where files come from, how they are verified and divided, and the one door to the test split."""
