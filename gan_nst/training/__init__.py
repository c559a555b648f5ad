"""How any method is trained: `trainer` (the loop) takes a `methods.base.Method` and batches, and knows nothing else.

Around it: `settings`, `optimizers` (Adam and the moving average), `guard` (values that are not finite), `checkpoint`,
`distributed` (several processes), `compilation` (whether it pays, and forecasts of time), `monitor` (metrics and
progress) and `samples` (grids).
"""
