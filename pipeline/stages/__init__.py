"""The stages before the engine; in this process and in actors they are the same objects."""
