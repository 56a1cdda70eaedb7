"""In, a path; out, a `TableFile` whose rows come in batches, or a writer of batches. One file a format."""
