"""Flightline: a continuous test lab for the Xen hypervisor."""
