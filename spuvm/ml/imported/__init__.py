"""Models of other libraries: files of one party come in, estimators that nobody else can read go out."""
