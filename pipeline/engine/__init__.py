"""The engine: one language model, its ranks, and the streams that share its steps. No Ray here."""
