"""Studies: many runs after a plan that was fixed before the first of them, and what they show."""
