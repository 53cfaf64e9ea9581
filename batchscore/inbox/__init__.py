"""The drop folder: which files are whole, what became of each, the process that scores them, and what goes when."""
