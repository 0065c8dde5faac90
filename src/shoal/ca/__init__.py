"""Certificates, join tokens and keys."""
