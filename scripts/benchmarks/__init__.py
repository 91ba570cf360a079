"""Measurements that docs/ holds: each prints a table and writes JSON."""
