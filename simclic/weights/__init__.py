"""Backbones as files: what was trained here out, and what was trained elsewhere in."""
