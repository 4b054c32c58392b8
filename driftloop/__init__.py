"""driftloop: what its services share."""
