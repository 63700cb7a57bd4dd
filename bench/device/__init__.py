"""The machine: what there is, how processes are set up, memory, the clock."""
