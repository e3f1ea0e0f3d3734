"""Sample data, one module per feed. ``jobs/generate_samples.py`` puts them together."""
