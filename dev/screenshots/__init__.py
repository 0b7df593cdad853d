"""Takes the pictures of the documents, docs/<language>/pictures/*.png, with the real pages in Chromium.

`story` brings the service into the states that are shown, `pictures` says which page of them is taken and how.
"""
