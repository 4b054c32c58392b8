"""One retrain: its queue, training set, training and result."""
