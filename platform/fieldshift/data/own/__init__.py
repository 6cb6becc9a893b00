"""Own data: folders of classes, scenes with masks, and npz files."""
