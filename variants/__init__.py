"""One file per axis; all axes start from `baseline`."""
