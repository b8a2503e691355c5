"""The tiny CLIP stream: drawn, trained and published on any machine, so that every command has something to eat."""
