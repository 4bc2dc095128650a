"""The HTTP service: one pipeline behind bounded, guarded sockets."""
