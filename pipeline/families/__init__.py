"""Model families: what each one needs that no other does, a folder each."""
