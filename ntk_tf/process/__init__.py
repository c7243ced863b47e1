"""The process itself: signals, start, memory. Knows nothing of runs."""
