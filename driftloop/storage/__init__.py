"""The object store: objects, references, the archive of labelled rows, and datasets under DVC."""
