"""The parts of `scripts.benchmarks.compare_methods`."""
