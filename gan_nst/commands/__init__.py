"""One file per command, with the public Python function of that name. `app` is gan_nst.web.server.

Doors: `train.train`, `translate.translate`, `evaluate.evaluate`, `export.export`, `importing.import_generator`,
`curves.curves`, `bench.benchmark`, `data_check.data_check`, `data_get.data_get`, `data.data_demo`, `data_frames` and
`data_smooth`, `methods.describe_methods`. Their options are declared in gan_nst.core.options.
"""
