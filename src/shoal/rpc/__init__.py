"""Links between nodes: frames of msgpack, whatever carries them."""
