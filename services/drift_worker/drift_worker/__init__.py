"""The drift worker: judges windows of predictions against the reference of the version that answered, and archives."""
