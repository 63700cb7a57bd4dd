"""Compare given detections of any detectors, files in COCO's results format, on one ground truth."""
