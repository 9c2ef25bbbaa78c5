"""What another policy would have earned on the decisions that were logged: off-policy evaluation. Pure."""
