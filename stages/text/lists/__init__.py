"""Word lists that come with the project: short, its own, one word or phrase a line.

`adult` and `gambling` name what spam of that kind says and other pages hardly ever do. They are no
judgement of a page that says one of them once: see `per_thousand` of a word list. Longer lists,
such as the one that C4 used, are read from your own files.
"""
