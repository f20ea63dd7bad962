"""How time and memory grow: measured on this machine, and simulated for up to 64 GPUs."""
