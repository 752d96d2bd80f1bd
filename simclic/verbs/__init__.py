"""The verbs that have verbs of their own, one module each."""
