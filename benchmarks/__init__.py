"""Side-by-side measurements. See benchmarks/README.md."""
