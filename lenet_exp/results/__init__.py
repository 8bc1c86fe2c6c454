"""What was recorded, read again: verdicts and their statistics, the leaderboard, ablation tables."""
