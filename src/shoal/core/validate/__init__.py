"""Validation and defaults of what users send, with Docker's texts. Pure: knows no store and no HTTP."""
