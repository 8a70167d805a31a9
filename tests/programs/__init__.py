"""Random programs with many kinks, programs that must not be certified, and oracles that know no theory."""
