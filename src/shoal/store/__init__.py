"""Tables, transactions and the change feed: the only place where the parts meet."""
