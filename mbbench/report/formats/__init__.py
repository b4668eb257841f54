"""Renderers: a document or results in, text out."""
