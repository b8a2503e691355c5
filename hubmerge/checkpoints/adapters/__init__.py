"""LoRA adapters applied to a model as its tensors are read."""
