"""Trains the small text-to-image model of the demo from pictures the project draws itself."""
