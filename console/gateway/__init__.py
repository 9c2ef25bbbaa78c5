"""ClickHouse's HTTP interface, on loopback, over chDB.

chDB allows one process per data path. In the local stack that process is this one: it serves SQL to the sink, the
console, clickhouse-connect, curl and Grafana, so that all of them use the same code against it and a real server.

chDB has neither users nor grants, and ClickHouse's table functions read files and URLs. So the users are ours (`users`): those who
write, those who only read, within limits, and those who see one tenant's rows (`reading`). Whatever would reach out of the store is
refused to all of them (`outside`). It binds loopback unless told otherwise and checks the Host and Origin headers: a page in a
browser must not reach it. docs/clickhouse-endpoint.md says what it serves and what it does not.
"""
