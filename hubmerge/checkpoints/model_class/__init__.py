"""Facts about a model's class in transformers, found from its config without values."""
