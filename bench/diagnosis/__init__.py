"""What the data alone say about a low mAP, before training: `run_all.py diagnose`."""
