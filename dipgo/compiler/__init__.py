"""Compiles a model and a SubNet into a plan."""
