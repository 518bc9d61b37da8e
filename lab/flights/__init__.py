"""Flights, jobs and steps: what is run, in which order, and what the outcome means. Pure."""
