"""Vocabularies: tokenizers of models, their union, and the rows that each token takes in embeddings and heads."""
