"""File formats: input files to rows, and staged parts to prediction files."""
