"""The plan before the run: what a job would take, from headers, arithmetic and measured rates."""
