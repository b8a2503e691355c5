"""What transformers says of a model's class and config."""
