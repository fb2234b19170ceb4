"""Samples: manifests and where they come from, splits, checks, the cache of films, augmentation and batches."""
