"""`gan-nst app`: a page in the browser that translates uploaded images.

Doors: `server.app` runs the page until it is stopped, `server.serving` within a context. `page` is what the browser
shows, `jobs` finds the translators and runs them. Only `page` imports Gradio, which is an extra.
"""
