"""Independent implementations of the protocols that drivers speak, on loopback, each in control of a machine."""
