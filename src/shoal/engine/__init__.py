"""Containers and images of one node: runc, skopeo, overlayfs and the keeper."""
