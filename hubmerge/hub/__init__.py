"""Reading from and publishing to the Hub: the only package that sends requests to it."""
