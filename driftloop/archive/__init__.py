"""The archive of predictions and outcomes in the object store: where its files lie, and how they are read."""
