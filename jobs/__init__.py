"""What people run: the command line, benchmarks, the demo model."""

from pipeline.cores import before_torch

before_torch()
