"""What is merged, kept and written, planned from names, shapes and configs."""
