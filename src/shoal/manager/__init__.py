"""Leader loops, dispatcher and control: what a manager does with the store."""
