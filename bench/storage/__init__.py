"""What a run writes and reads back: whole files, locks, records, provenance."""
