"""ClickHouse's HTTP interface, on loopback, over chDB.

chDB allows one process per data path. In the local stack that process is this one: it serves SQL to the sink, the
console, clickhouse-connect, curl and Grafana, so that all of them use the same code against it and a real server.

Whoever reaches the port can do what the user who runs it can do: ClickHouse's table functions read files and URLs, and
chDB has neither users nor grants. That is why it binds loopback only, checks the Host and Origin headers (a page in a
browser must not reach it), and refuses INFILE and OUTFILE.
"""
