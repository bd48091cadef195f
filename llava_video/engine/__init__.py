"""Requests in, text pieces out: one cache, one step, one loop."""
