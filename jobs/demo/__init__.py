"""`vidray demo`: a drawn world, clips of it with their truth, and how they compare."""
