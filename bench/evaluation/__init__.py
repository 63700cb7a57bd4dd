"""Detections against ground truth: COCO's and VOC's AP, matches, types of error."""
