"""Composition root of shoald and of the keeper."""
