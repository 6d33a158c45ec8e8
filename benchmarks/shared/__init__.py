"""What several benchmarks use: the machine, generated catalogues, texts."""
