"""What all estimators share: any form of data comes in, tables and labels on a machine go out; parts on disk."""
