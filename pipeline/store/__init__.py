"""Archives in, tables out: object stores, sources, and the commit protocol. No Ray, no torch."""
