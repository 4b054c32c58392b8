"""The HTTP interface: the inference gateway, its protocols and the admin routes."""
