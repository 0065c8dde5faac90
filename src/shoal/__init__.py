"""Shoal: Docker Swarm mode, built anew. See ARCHITECTURE.md for the floors of the house."""

__version__ = "0.2.0"
