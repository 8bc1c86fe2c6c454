"""Data sets: where files come from, how they are verified and divided, and who may open the test split."""
