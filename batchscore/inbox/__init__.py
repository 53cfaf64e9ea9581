"""The drop folder: which files are complete, how each is scored and filed, and which old runs are removed."""
