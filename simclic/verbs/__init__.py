"""Verbs that fill a module each."""
