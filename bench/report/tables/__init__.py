"""Tables of a run: entries, columns, and how they are typeset."""
