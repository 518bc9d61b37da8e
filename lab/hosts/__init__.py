"""Hosts: what they are, who may use them, how they are planned and driven."""
