"""Learns gates by gradient."""
