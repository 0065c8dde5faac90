"""Addresses and ports: what is free follows from what the store holds, never from a book of its own."""
