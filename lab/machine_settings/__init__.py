"""The settings of a real machine, a file for each of its parts: how to reach it, checked as they are read."""
