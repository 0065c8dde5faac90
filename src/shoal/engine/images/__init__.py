"""Images of a node: blobs and layers by content, an SQLite index, archives and pulls (architecture.md 4.6)."""
