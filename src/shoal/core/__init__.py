"""Every decision, as pure functions of a view and `now`: no IO, no clock, no chance."""
