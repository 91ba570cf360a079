"""Chooses what stays fp32, and compares segments with fp32."""
