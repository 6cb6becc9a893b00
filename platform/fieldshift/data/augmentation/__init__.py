"""2D augmentation: the basic one that all arms share, and the arms that video arms are compared with."""
