"""Tensor names of a checkpoint matched with those of the base model."""
