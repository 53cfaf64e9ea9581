"""Files in, rows out; staged parts in, prediction files out."""
