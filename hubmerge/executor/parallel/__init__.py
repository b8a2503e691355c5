"""Threads, processes and devices that share the work on tensors."""
