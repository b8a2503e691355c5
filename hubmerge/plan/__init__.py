"""Plan of a run: downloads, disk, memory and tensors, and the text that shows them."""
