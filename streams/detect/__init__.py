"""Detectors: semantic failures found in the stream, as alerts, as reward penalties and as brakes of the guard.

Each detector is one file with one class and one line in `streams.detect.catalog`. There are three sorts, by what they look at:

- of a **trace** (`TraceDetector`): span by span as they arrive, in `streams.detect.trace_watch`;
- of a **decision** (`DecisionDetector`): once, when its reward closes;
- of a **policy** (`PolicyDetector`): reward by reward, in the learning stage, in `streams.detect.policy_watch`.

All are functions of the log alone: no clock, no randomness. What a trace detector remembers is made again from the spans of the
trace, which the join keeps anyway; what a policy detector remembers is JSON in the state of the learning stage.
"""
