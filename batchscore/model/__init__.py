"""A saved classifier: open and check it, then score rows with it in micro-batches."""
