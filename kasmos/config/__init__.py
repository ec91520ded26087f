"""Configuration: strict tables in TOML, then the environment, then flags, merged into frozen values.

`keys` is the one table of what can be said; reading, defaults, the JSON Schema, `kas config init` and
`config.toml.example` all follow from it.
"""
