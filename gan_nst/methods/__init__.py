"""One file a method; each reads like its paper. `base` holds what they share."""
