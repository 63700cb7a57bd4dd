"""Files of a run: atomic writes, locks, records and logs, provenance."""
