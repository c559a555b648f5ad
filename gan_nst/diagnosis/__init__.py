"""Diagnoses a run from its logged values: findings, each with advice, and a figure of the curves.

`curves` (`read_run`: the logged values by key), `rules` (`diagnose`: values to findings), `figure` (`draw`) and
`measures` (`measure`: signs of a broken generator, logged at every validation).
"""
