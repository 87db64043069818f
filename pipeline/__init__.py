"""What a video goes through, as plain Python: plan, frames, tokens, words. Never imports ray."""
