"""The detector: backbone, neck, priors, heads, matching, loss and post-processing, in plain PyTorch."""
