"""Clock, ids, back-off, supervision, units, files: no word of the domain."""
