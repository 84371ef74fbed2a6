"""What `guerrillad` can do: a module each, with `add` for its arguments and `run` for the work."""
