"""Feature pyramids: pooling from all levels at once, and what it is fed with."""
