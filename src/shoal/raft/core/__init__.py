"""The pure core of consensus: messages and ticks in, messages, entries and state out (etcd/raft's RawNode contract)."""
