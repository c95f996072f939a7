"""Whole job servers: ours and other people's, each in a process of its own, with jobs that do nothing."""
