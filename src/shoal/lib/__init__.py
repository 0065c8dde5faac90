"""Clock, ids, back-off, supervision, units: no word of the domain."""
