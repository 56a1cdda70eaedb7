"""Preparation: tables come in; scaled, encoded, binned, filled and chosen columns go out, each where it was."""
