"""Files of checkpoints: safetensors and pickles, headers, shards, ranges."""
