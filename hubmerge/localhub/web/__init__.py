"""The HTTP side of the embedded Hub: one module per group of addresses, each with its `ROUTES`."""
