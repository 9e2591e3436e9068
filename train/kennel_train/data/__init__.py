"""From channels to decoded photos: image folders, manifests, streams, splits, the audit, random numbers."""
