"""Speed as ratios in one run: vidray against what users would pick instead, and against the machine."""
