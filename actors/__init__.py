"""Ray actors around pipeline/: a process, a queue, credits and a restart for each stage."""

from pipeline.cores import before_torch

before_torch()
