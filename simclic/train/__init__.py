"""Algorithm 1: the encoder of a Run, trained or read."""
