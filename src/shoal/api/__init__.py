"""Docker's HTTP API: routes by noun, filters, views and streams."""
