"""`steersman verify`: recount the log, and compare it with every count and every row that was made of it."""
