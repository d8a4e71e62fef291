"""Stores: the port, the store over two repositories, and the adapters."""
