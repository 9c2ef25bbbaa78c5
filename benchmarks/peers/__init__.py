"""Other stream processors doing the rollup job, each in its own way; run by `benchmarks.rollup` in `benchmarks/.venv-streaming`."""
