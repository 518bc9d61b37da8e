"""The doctor: does this installation work, and what is to be done where it does not? One file for each part of it."""
