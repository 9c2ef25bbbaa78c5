"""What a policies file that never ran would have done: learned again from the log of rewards, and evaluated on it. Pure."""
