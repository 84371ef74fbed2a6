"""What the config's models say of themselves: the sample, the JSON Schema, `docs/config.md`."""
