"""The steps that `gan-nst bench` and `make gpu-check` time.

reference.py: CycleGAN as a plain loop, the baseline. steps.py: one step of it, and one of the trainer's. gpu_check.py:
what to measure first on a new GPU.
"""
