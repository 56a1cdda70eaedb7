"""Estimators made of estimators: pipelines, column transformers, splits, cross-validation, searches."""
