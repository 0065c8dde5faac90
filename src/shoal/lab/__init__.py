"""A whole swarm on one machine: a network namespace, a host name and a shoald for each node."""
