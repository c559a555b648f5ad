"""Translates images in parts, with the same result as in one piece, and blends consecutive frames.

`segments` describes a generator as stages (`stages`, `fuse_upsampling`, `run_with_statistics`); `strips`
translates an image that does not fit in memory (`Strips`, `pad_to_multiple`); `flow` detects cuts and
blends frames along the motion (`CutDetector`, `Smoother`).
"""
