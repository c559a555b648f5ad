"""The basis of all other folders, independent of images and networks.

`errors` (the errors, and the formatters that messages share), `settings` (YAML and overrides to validated sections),
`options` (what commands take), `files` (atomic writes), `legacy` (names in old files), `device` (device, precision,
memory, processes), `threads` (how many compute), `terminal` (logging, progress, signals), `scores` (a value with its
interval), `pretrained` (third-party weights), and `version`.
"""
