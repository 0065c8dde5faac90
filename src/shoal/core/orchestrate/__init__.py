"""What tasks a service should have: plans of pure functions over a service, its tasks and the nodes."""
