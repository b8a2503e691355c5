"""The first pass of a step: task vectors into accumulated deltas, tensor by tensor."""
