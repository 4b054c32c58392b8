"""The commands ``driftloop archive …``: one file a command."""
