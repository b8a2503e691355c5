"""Methods that read the merged model out of moments: a few sums over all task vectors, whatever their number.

    S = Σ w τ        N = Σ w τ (τ^T τ) / |τ|²        G = Σ w (τ^T τ) / |τ|²        c = Σ w

The sums do not depend on the order of the checkpoints. The moments of two streams add up to those of both, and a
checkpoint can be subtracted again. All methods here save equal states, so a state can be read by each of them.
"""
