"""Names for containers: the resolver, one process a node that answers DNS at 127.0.0.11 (dataplane.md 5).

Pure: codec, table, answers, allowance. The process: opening, serving, upstream, memory, resolver. The daemon's end:
client, process.
"""
