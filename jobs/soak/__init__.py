"""Long trials of a running fleet: `vidray soak chaos` and `vidray soak memory`."""
