"""Ray actors around pipeline/: a process, a queue, credits and a restart for each stage."""
