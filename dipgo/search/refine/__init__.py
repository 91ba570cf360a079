"""Improves chosen gates on the trajectories that will be deployed."""
