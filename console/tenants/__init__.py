"""Tenants of the platform on a real ClickHouse server: who may read what, as SQL."""
