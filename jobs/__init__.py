"""user-analytics: raw files to a star schema, in batches that may be run again at any time."""

__version__ = "0.1.0"
