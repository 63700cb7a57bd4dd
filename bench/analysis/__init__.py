"""From records to metrics with confidence intervals. Nothing here imports torch: the records are enough."""
