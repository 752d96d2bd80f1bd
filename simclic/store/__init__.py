"""What lies on disk of a Run, who is at work on it, and all results as one table."""
