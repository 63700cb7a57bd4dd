"""The one training loop, its schedule and its checkpoints."""
