"""Measurements: `python -m benchmarks [name ...]` prints them and writes `benchmarks/results/<name>.json`."""
