"""What every other folder builds on; it knows no image and no network.

`errors` (the errors, and the formatters that messages share), `settings` (YAML and overrides to validated sections),
`options` (what commands take), `files` (atomic writes), `legacy` (names in old files), `device` (device, precision,
memory, processes), `terminal` (logging, progress, signals), `scores` (a value with its interval), `weights` (other
people's weights), and `version`.
"""
