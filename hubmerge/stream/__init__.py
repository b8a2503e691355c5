"""A recipe resolved into a stream: every reference at one commit."""
