"""Where training images come from: finding data sets, decoding them once, and turning them into batches.

Doors: `domains.locate` finds a data set and its splits, `cache.open_images` decodes its images, and `batches.Batches`
draws the training batches. `demo.make_demo` draws a data set whose truth is known, `download` and `archives` fetch one,
`check.check_images` looks for mistakes in one, `frames.take_frames` makes one from a video, and
`smoothing.smooth_edges` makes CartoonGAN's negatives.
"""
