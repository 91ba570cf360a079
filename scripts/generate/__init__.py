"""Generators: each writes a file that is committed, from the program itself."""
