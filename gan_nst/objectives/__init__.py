"""What training minimises: `losses` (pure functions of tensors), `replay` (a history of fakes for discriminators) and
`augment` (differentiable augmentation of what discriminators see).
"""
