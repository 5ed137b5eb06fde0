"""Adapters from a team's own pictures: which may be trained on (samples), and the training."""
