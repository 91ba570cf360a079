"""Runs an export as a pipeline: prompts in, pictures out; no torch."""
