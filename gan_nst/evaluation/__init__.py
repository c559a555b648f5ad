"""Images against images: scores with intervals, and the report of a run. It knows no generator and no training.

`comparison` (`ReferenceSet`: all scores of a set of images), `features` (the networks they are compared through),
`distances` (between sets of features), `paired` (an image against its input or truth; the colour map), `report`
(`render`: an HTML page) and `settings`.
"""
