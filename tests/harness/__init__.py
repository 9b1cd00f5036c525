"""What tests, demo and benchmarks share to run playbooks and to look at a guest's /sys."""
