"""Benchmarks: each is one command, with its peers in the same run and its figures in a table."""
