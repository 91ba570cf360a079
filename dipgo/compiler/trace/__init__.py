"""Traces a denoiser into a graph of blocks."""
