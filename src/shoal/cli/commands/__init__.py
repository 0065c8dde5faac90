"""The command line, a noun a module."""
