"""A run: its plan, its cells, what schedules them, and their report."""
