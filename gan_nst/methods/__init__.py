"""Ways to train translators: `base` defines methods, and every other module is one method, named by its file."""
