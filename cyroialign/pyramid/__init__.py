"""Feature pyramids: pooling from all levels at once, and the stages before it."""
