"""Probation: whether a promoted version keeps its place."""
