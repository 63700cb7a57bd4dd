"""From records to figures. Nothing in here imports torch: a laptop with the records is enough."""
