"""Helpers that know nothing of dipgo: command lines, errors, files, JSON, noise."""
