"""Data quality: rules beside each feed and table, what a run found by them, and the report that shows it."""
