"""The synthetic world: pictures whose truth is known."""
