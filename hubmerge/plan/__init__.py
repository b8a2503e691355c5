"""What a run will do: downloads, disk, memory, tensors, and the text that shows it."""
