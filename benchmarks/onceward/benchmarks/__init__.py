"""Benchmarks: what each runner costs, next to the raw driver's round trips and to peers, in one interleaved run."""
