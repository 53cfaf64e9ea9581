"""A saved classifier: opening and checking it, and rows through it in micro-batches."""
