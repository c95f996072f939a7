"""The experiments, one file per area."""
