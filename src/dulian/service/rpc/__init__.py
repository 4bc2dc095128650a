"""The service over gRPC: the protocols and what is generated from them, and what answers them.

Everything here needs the extra ``grpc``, so nothing outside imports it before a port for gRPC is asked for.
"""
