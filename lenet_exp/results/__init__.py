"""What was recorded, read again: statistics, verdicts, the leaderboard and its CSV, ablation tables."""
