"""Video in: an address to frames with their true times."""
