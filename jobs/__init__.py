"""What people run: the command line, benchmarks, the demo model."""
