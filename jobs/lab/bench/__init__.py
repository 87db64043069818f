"""Speed as ratios in one run: against what users would pick instead, and the machine's limits."""
