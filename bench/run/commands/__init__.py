"""One module per command of ``run_all.py``."""
