"""``run_all.py throughput``: stages of inference, training steps, and torchvision's SSD for comparison."""
