"""Score detections against ground truth: COCO and VOC AP, matches, error types."""
