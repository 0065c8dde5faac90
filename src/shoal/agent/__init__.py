"""What a node does with the tasks assigned to it."""
