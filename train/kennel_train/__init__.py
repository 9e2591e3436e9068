"""The training contract: labelled photos in, one model folder out."""
