"""Demo videos for `make demo`: made on the spot from photographs and clips inside installed wheels."""
