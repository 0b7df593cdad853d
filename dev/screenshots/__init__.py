"""Takes the pictures of the READMEs, docs/screenshots/*.png, with the real pages in Chromium.

`story` brings the service into the states that are shown, `pictures` says which page of them is taken and how.
"""
