"""Bytes, seconds and names from outside, as text for a terminal."""
