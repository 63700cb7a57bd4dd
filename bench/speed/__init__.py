"""``run_all.py throughput``: stages of inference apart, steps of training, and torchvision beside ours.

All of it is measured by `bench.speed.inference.timed_call`, as are the records of a run and the benchmarks.
"""
