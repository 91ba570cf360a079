"""The version of dipgo, also for modules that the root package imports."""

__version__ = "0.1.0"
