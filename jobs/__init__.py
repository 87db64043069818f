"""What people run: the command line, benchmarks, the demo model."""

from pipeline.cores import spin_briefly

spin_briefly()  # before anything here loads torch
