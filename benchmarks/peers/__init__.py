"""The projects that driftloop is compared with, each in an environment of its own."""
