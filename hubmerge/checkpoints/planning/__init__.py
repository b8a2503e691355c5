"""Plan of a merge: the tensors to merge, keep and write, from names, shapes and configs."""
