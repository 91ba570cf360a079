"""dipgo: from a pruned diffusion model to deployable engines. Nothing heavy is imported here."""

__version__ = "0.1.0"
