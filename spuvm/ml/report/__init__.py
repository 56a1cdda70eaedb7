"""What a model is worth and what it cost: a model and rows come in, numbers that were asked for and a page go out."""
