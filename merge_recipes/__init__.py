"""The recipe language of hubmerge."""
