"""Archives in, tables out: a job from its flags or its file to its last part, and after."""
