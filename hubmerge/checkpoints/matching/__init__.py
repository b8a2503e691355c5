"""Matching of a checkpoint's tensors with the base model's, by names and shapes."""
