"""Long trials of what is promised: `vidray soak kills`, `chaos` and `memory`."""
