"""Use cases. Each folder defines one model: its columns, data, pipeline and target."""
