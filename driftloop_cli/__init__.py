"""The operator's command, ``driftloop``, and the client that requests retrains."""
