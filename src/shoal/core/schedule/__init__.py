"""Which node a task goes to, or why none: filters, then spread."""
