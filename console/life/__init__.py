"""`steersman policy`: the life cycle of policies: acts, history, differences, explanations."""
