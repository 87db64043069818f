"""Long trials of what is promised: `vidray soak kills`, `faults`, `chaos` and `memory`."""
