"""What people run: the command line, jobs over archives, the demo, the laboratory."""

from pipeline.cores import before_torch

before_torch()
