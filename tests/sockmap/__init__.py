# SPDX-License-Identifier: Apache-2.0
"""bypath-sockmap's programs under real traffic on the machine's own kernel: every byte is compared.

live.py       the programs, attached as long as a test runs, and their maps
pods.py       two pods and the way between them
exchange.c    the load: connections by the thousand that reuse their ports, one process for all ends
soak.py       `make soak`: the same load for as long as it takes
naive.bpf.c   pairing by the client's address and port, which the same load must catch
programs/     nginx, haproxy, Envoy, redis and PostgreSQL in accelerated pods
"""
