# SPDX-License-Identifier: Apache-2.0
"""Programs as people run them, in pods that bypath-sockmap accelerates: every body is compared with what was sent.

proxies.py     nginx, haproxy and Envoy, also for bench/sockmap
databases.py   redis and PostgreSQL
bodies.py      an HTTP origin and its clients, whose bodies follow from their paths
resp.py        a redis client: pipelines, large values, subscribers
"""
