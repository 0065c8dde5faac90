"""The labels by which docker knows what belongs to a stack."""

NAMESPACE_LABEL = "com.docker.stack.namespace"
IMAGE_LABEL = "com.docker.stack.image"
