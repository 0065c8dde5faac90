"""The network of one node: namespaces, links, balancing by nftables."""
