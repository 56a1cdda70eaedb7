"""Classifiers and regressions by likelihood and by neighbours: tables and labels in, secret models out."""
