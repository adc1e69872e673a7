"""Benchmarks: commands that print Markdown. No test imports a figure from here, and no test measures time."""
