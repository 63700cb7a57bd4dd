"""The built-in data set: drawn photographs of shop shelves, annotated by the drawing itself."""
