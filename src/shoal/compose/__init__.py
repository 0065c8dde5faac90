"""Compose files: from what people write to what the API is asked for. Pure: files are read by who calls."""
