"""One file per contender, each run as a process of its own by benchmarks/raw_to_star.py."""
