"""The laboratory, which the product never imports: benchmarks, long trials, training the model."""
