"""Components that come with spuvm: in, values of a flow's kinds; out, the same, a few lines each over what is there."""
