"""How shipped checkpoints were made: each recipe is one `python -m` away."""
