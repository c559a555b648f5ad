"""Ways to train translators: `base` says what a method is, and every other module is one method, named by its file."""
