"""One run from its inputs to its finished folder: plan, score, finish, and what is read back from it."""
