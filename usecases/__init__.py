"""Use cases: each folder here is everything that driftloop has to know of one model."""
