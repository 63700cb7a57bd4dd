"""Annotation formats to one array-based form: COCO, VOC, YOLO."""
