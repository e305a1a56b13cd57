"""The code that the notebooks share. README has a map of it."""
