"""Runnable examples: the research-assistant fleet, replays of real routing data, and replays of real traces."""
