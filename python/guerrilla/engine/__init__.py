"""The engine: chains of stages, asked in batches by workers; it knows neither sockets nor SMTP.

Layout:
    base.py       what a stage is: `Processor`
    registry.py   where the names of a chain come from; installed.py: those of packages
    imported.py   whether files of imported modules have changed since
    chain.py      the stages of one worker, opened and closed together
    plan.py       from stages to segments, once; stages.py: how each is asked
    tasks.py      saving and checking: what differs between them
    worker.py     threads with a chain each; supervisor.py replaces those that die or hang
    backend.py    one's own in place of the chains; backends.py: those of a config
    breaker.py, figures.py   whether it is worth asking, and what each stage did
"""
