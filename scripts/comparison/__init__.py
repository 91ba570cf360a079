"""The parts of `scripts.compare_methods`."""
