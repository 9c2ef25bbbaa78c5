"""`steersman forget`: what is stored about a tenant, a user or a session is deleted."""
