"""Archives: many videos → rows of captions, answers and timelines, each worked exactly once."""
