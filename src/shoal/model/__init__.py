"""Frozen structs: specs, objects, store actions, messages between nodes. Data only; no decisions, no IO."""
