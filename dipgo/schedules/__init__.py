"""Schedules: what other methods skip, as SubNets."""
