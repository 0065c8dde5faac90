"""The keeper: the one small process a node that is the parent of its containers (architecture.md 4.6).

Imports nothing but the standard library's small modules, this package and `shoal.lib.cgroups`: it starts fast and stays
small.
"""
