"""A run: its plan, cells, scheduler and report, and the commands of ``run_all.py``."""
