"""One file an axis; `baseline` is where they all start."""
