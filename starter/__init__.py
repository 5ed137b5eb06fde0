"""The small models that ship with Platemark, the world they know, and how they are trained.

Imported by its own trainers, scorer and tests only; the application loads `weights/` by path.
"""
