"""Every choice a user can make: one table of settings, the layers they come from, presets, and models by name."""
