"""Redis: a cache of keys in front of the durable store, and the counters of limits."""
