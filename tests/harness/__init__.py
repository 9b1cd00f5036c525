"""Runs playbooks and reads a guest's /sys, for tests, demo and benchmarks."""
