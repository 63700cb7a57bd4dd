"""The single-shot detector: backbone, neck, priors, heads, matching, loss, final detections."""
