"""`gan-nst app`: a page in the browser that translates uploaded images.

Doors: `server.app` runs the page until it is stopped, `server.serving` within a context. `page` is what the browser
shows, `jobs` finds the runs to choose from and translates. Gradio, which is an extra, is imported only when it serves.
"""
