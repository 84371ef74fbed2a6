"""The log: standard `logging` below the logger `guerrilla`, for what Python and the core say.

Layout:
    output.py     where it goes, as the config says, and how that changes
    form.py       a line of text, or a JSON object
    handlers.py   files that can be moved away; pump.py: records of the core
    sharing.py    what several daemons of one process have in common
"""
