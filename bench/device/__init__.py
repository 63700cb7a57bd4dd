"""The machine: cores, devices, memory, process settings, and the fork server."""
