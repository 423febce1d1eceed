"""Target descriptions (TOML), shipped as the package `edgec_targets`."""
