"""The files of a Run, the claims of processes that work on it, and all results as one table."""
