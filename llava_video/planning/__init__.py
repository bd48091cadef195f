"""Which frames, how many tokens, at which times: arithmetic before any pixel."""
