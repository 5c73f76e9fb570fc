"""Search spaces as named decisions, which samplers choose, cross and mutate."""
