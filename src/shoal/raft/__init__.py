"""Consensus over bytes: knows neither the model nor the store."""
