"""The operator's command, ``driftloop``."""
