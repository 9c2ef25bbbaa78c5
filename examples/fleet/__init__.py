"""A research assistant of four agents, each its own process, that uses only the `steersman` package.

`python -m examples.fleet --help` starts it. `world` and `query` say what is simulated and how.
"""
