"""One run from its inputs to its finished folder: plan, score, finish, and reading it back."""
