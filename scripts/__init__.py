"""Scripts that measure, ablate and generate: each runs as `python -m scripts.…`."""
