"""Named, versioned search spaces: motions as TOML files, training and augmentation settings as Python modules."""
