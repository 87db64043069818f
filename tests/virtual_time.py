"""The virtual clock, for tests: see jobs/lab/simulate/virtual_time.py."""

from jobs.lab.simulate.virtual_time import VirtualLoop, run_virtually

__all__ = ["VirtualLoop", "run_virtually"]
