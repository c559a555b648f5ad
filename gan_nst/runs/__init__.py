"""What commands and the page need of a run folder: where it is, its settings, its data and its generators.

Doors: `folder.new_run`, `find_run`; `settings.load_settings`, `resume_settings`; `prepare.prepare` (everything that a
training needs, opened and checked); `generators.load_translator`; `subjects.open_subjects` (what is evaluated);
`validation.Validation` (scores in the training loop); `assessment.evaluate_run` (scores on the test split).
"""
